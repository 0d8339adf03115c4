// The specs that we recommend: each is accepted as it is, without an error or a warning, gives a reason for its values,
// and really trains; and `astraml init` hands them out.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { z } from 'zod';
import { jobSpecSchema } from '../../src/spec/json-schema.ts';
import { commandLine } from '../support/cli.ts';
import { createProject, followLog, jobState, type Stack, startStack } from '../support/stack.ts';

const folder = fileURLToPath(new URL('../../examples/specs', import.meta.url));
const names = readdirSync(folder).map((file) => file.replace(/\.yaml$/, ''));
const textOf = (name: string) => readFileSync(join(folder, `${name}.yaml`), 'utf8');
const trainer = fileURLToPath(new URL('../../examples/digits/train.ts', import.meta.url));

let stack: Stack;
const cli = commandLine(() => ({ ASTRAML_URL: stack.url, ASTRAML_TOKEN: stack.token }));
before(async () => {
  stack = await startStack();
  await createProject(stack.client, 'p-demo', [process.execPath, trainer, '--samples', '1024', '--report-every', '1']);
});
after(async () => {
  await stack.stop();
  cli.remove();
  await expectNoLeaks();
});

type Preview = {
  warnings: unknown[];
  errors: unknown[];
  resolved: { path: string; value: unknown; source: string }[];
};

suite('The recommended specs', { concurrency: 2 }, () => {
  test('are those for common workloads', () => {
    assert.deepEqual(names.sort(), ['fine-tuning', 'hourly-retraining', 'image-classification', 'large-batch']);
  });

  for (const name of names) {
    test(`${name} is accepted without an error or a warning, and pins its version of the defaults`, async () => {
      const spec = parse(textOf(name)) as Record<string, unknown>;
      const file = join(folder, `${name}.yaml`);
      const { code, stdout, stderr } = await cli.run(['submit', '-f', file, '--dry-run', '--json']);
      assert.equal(code, 0, stderr);
      const preview = JSON.parse(stdout) as Preview;
      assert.deepEqual([preview.warnings, preview.errors], [[], []]);
      assert.equal(spec['defaults_version'], 'v2.1');
      const requested = preview.resolved.filter(({ source }) => source === 'REQUEST').map(({ path }) => path);
      for (const path of ['batch_size', 'lr', 'epochs']) assert.ok(requested.includes(`hyperparams.${path}`), path);
    });

    test(`${name} gives its reasons, and fits the JSON Schema for editors`, () => {
      assert.ok((textOf(name).match(/^ *# /gm) ?? []).length >= 8, 'comments');
      z.fromJSONSchema(jobSpecSchema() as never).parse(parse(textOf(name)));
    });
  }

  test('image-classification trains with its augmentation', async () => {
    const { log, loss } = await run('image-classification', ['--epochs', '2']);
    assert.match(log, /augmentation: shift \(pixels 2\) on 50 % .*rotate \(degrees 10\).*erase \(size 6\) on 25 %/);
    assert.match(log, /training: epochs 2, 32 updates of batch 64 x accumulation 1/);
    assert.equal(loss.count, 32);
    assert.ok(loss.last.value < loss.max.value / 2, `the loss falls: ${JSON.stringify(loss)}`);
  });

  test('hourly-retraining is a schedule that is due at the start of each hour', async () => {
    const { code, stdout, stderr } = await cli.run(['submit', '-f', join(folder, 'hourly-retraining.yaml'), '--json']);
    assert.equal(code, 0, stderr);
    type Schedule = { cron: string; timezone: string; nextRuns: string[] };
    const { cron, timezone, nextRuns } = JSON.parse(stdout) as Schedule;
    assert.deepEqual([cron, timezone], ['0 * * * *', 'UTC']);
    assert.match(nextRuns[0] ?? '', /T\d\d:00:00\.000Z$/);
  });

  test('large-batch makes one update of 64 accumulated batches', async () => {
    const { log, loss } = await run('large-batch', ['--epochs', '2', '--set', 'seed=3']);
    assert.match(log, /training: epochs 2, 4 updates of batch 8 x accumulation 64, seed 3/);
    assert.equal(loss.count, 4);
  });
});

type Loss = { count: number; max: { value: number }; last: { value: number } };

/** Submits an example to the real runner; its log, and what became of its training loss. */
async function run(name: string, flags: string[]): Promise<{ log: string; loss: Loss }> {
  const { code, stdout, stderr } = await cli.run(['submit', '-f', join(folder, `${name}.yaml`), ...flags]);
  assert.equal(code, 0, stderr);
  const id = stdout.split(' ')[0] ?? '';
  const lines = await followLog(stack.client, id);
  assert.equal((await jobState(stack.client, id)).state, 'SUCCEEDED', JSON.stringify(lines.slice(-5)));
  const { job } = await stack.client.request<{ job: { metrics: (Loss & { name: string })[] } }>(
    'query ($id: ID!) { job(id: $id) { metrics { name count max { value } last { value } } } }',
    { id },
  );
  const loss = job.metrics.find((metric) => metric.name === 'train/loss');
  assert.ok(loss);
  return { log: lines.map(({ text }) => text).join('\n'), loss };
}

suite('astraml init', { concurrency: 2 }, () => {
  test('writes a spec that can be submitted, with the schema for editors, and replaces none unasked', async () => {
    const first = await cli.run(['init']);
    assert.deepEqual([first.code, first.stdout], [0, 'job.yaml\n'], first.stderr);
    const text = readFileSync(join(cli.folder, 'job.yaml'), 'utf8');
    const [, address = ''] = /^# yaml-language-server: \$schema=(\S+)\n/.exec(text) ?? [];
    assert.equal(address, `${stack.url}/schema/job-spec.json`);
    const served = (await (await fetch(address)).json()) as { properties: object };
    assert.deepEqual(served, JSON.parse(JSON.stringify(jobSpecSchema())));
    assert.ok('hyperparams' in served.properties && 'schedule' in served.properties);
    assert.match(text, /astraml submit -f job\.yaml/);
    assert.equal((await cli.run(['submit', '-f', 'job.yaml', '--dry-run'])).code, 0);

    const second = await cli.run(['init', '--example', 'large-batch']);
    assert.equal(second.code, 2);
    assert.match(second.stderr, /job\.yaml is there already.*\n.*--force/);
    assert.equal(readFileSync(join(cli.folder, 'job.yaml'), 'utf8'), text);
    const forced = await cli.run(['init', '--example', 'large-batch', '--force', '--json']);
    assert.deepEqual(JSON.parse(forced.stdout), { path: 'job.yaml', example: 'large-batch' });
    assert.match(readFileSync(join(cli.folder, 'job.yaml'), 'utf8'), /gradient_accumulation_steps: 64/);
  });

  test('names the nearest example and all there are', async () => {
    const { code, stderr } = await cli.run(['init', '--example', 'finetuning']);
    assert.equal(code, 2);
    assert.match(
      stderr,
      /Did you mean "fine-tuning"\? There are: fine-tuning, hourly-retraining, image-c.*, large-batch/,
    );
    const away = await cli.run(['init', '--example', '../../package']);
    assert.equal(away.code, 2);
  });
});
