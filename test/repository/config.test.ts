// The environment of a gateway and of a runner: what is wrong with it is said at once, in our words, without secrets.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { runnerVariables } from '../../src/cli/serve/runner-variables.ts';
import { ConfigError, readConfig } from '../../src/config.ts';
import { variables } from '../../src/variables.ts';

const wrong = {
  PORT: 'x',
  ASTRAML_PUBLIC_URL: 'ftp://x',
  DATABASE_URL: 'mysql://user:canary-password@db',
  REDIS_URL: 'canary-password',
  ASTRAML_BOOTSTRAP_TOKEN: 'canary-password',
  ASTRAML_SECRET_KEYS: 'canary-password',
  ASTRAML_GRAPHIQL: 'yes',
  ASTRAML_MAX_DEPTH: '1.5',
  ASTRAML_OPERATION_SECONDS: '999999',
  ASTRAML_RATE_LIMIT_POINTS: '-1',
  ASTRAML_RUNNER_LEASE_SECONDS: '1',
  LOG_LEVEL: 'loud',
};
/** How the parser of values would say it. */
const raw = /Invalid|expected|received|Too (small|big)/;

test('a configuration with problems names each of them, what is expected and an example, and no secret', () => {
  const error = (() => {
    try {
      readConfig(wrong);
    } catch (caught) {
      return caught;
    }
    return null;
  })();
  assert.ok(error instanceof ConfigError);
  const [head, ...problems] = error.message.split('\n');
  assert.equal(head, 'The configuration has 12 problems:');
  for (const name of Object.keys(wrong)) {
    const line = problems.find((problem) => problem.startsWith(`  ${name}=`)) ?? assert.fail(name);
    assert.match(line, new RegExp(`For example ${name}=.+ — `));
    assert.doesNotMatch(line, raw);
    assert.doesNotMatch(line, /canary/);
  }
  assert.ok(problems[0]?.includes('PORT="x": must be a whole number from 0 to 65535.'), problems[0]);
});

test('every variable refuses in our words', () => {
  for (const [name, { schema }] of [...Object.entries(variables), ...Object.entries(runnerVariables)]) {
    for (const value of ['-1', '1e99', 'no such value', '::']) {
      const parsed = schema.safeParse(value);
      for (const { message } of parsed.error?.issues ?? []) assert.doesNotMatch(message, raw, `${name}=${value}`);
    }
  }
});

test('a runner names every variable that is wrong, in our words', () => {
  const binary = resolve(import.meta.dirname, '../../bin/astraml.mjs');
  const env = {
    PATH: process.env['PATH'],
    ASTRAML_URL: 'ftp://x',
    ASTRAML_RUNNER_TOKEN: 'short',
    REDIS_URL: 'x',
    ASTRAML_RUNNER_GPUS: '65',
    ASTRAML_RUNNER_PLACES: '0',
    ASTRAML_RUNNER_GRACE_SECONDS: 'x',
    ASTRAML_RUNNER_WHEN_CUT: 'wait',
    ASTRAML_RUNNER_SPOOL_BYTES: '1',
  };
  const { status, stderr } = spawnSync(process.execPath, [binary, 'runner', 'start'], { env, encoding: 'utf8' });
  assert.equal(status, 2, stderr);
  for (const name of Object.keys(env).slice(1)) assert.match(stderr, new RegExp(`^ {2}${name}: must `, 'm'));
  assert.doesNotMatch(stderr, raw);
});
