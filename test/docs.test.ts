// The documents are true: operations of the README are valid, its table and `.env.example` are those of the code.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse, validate } from 'graphql';
import { configTable, envExample } from '../src/config.ts';
import { schema } from '../src/gateway/schema.ts';

const file = (name: string) => new URL(`../${name}`, import.meta.url);
const readme = () => readFileSync(file('README.md'), 'utf8');
const table = () => `<!-- configuration -->\n\n${configTable()}\n\n<!-- /configuration -->`;
const marked = /<!-- configuration -->[^]*<!-- \/configuration -->/;

// `node test/docs.test.ts --write` brings them up to date.
if (process.argv.includes('--write')) {
  writeFileSync(file('README.md'), readme().replace(marked, table()));
  writeFileSync(file('.env.example'), envExample());
}

test('every operation in the README is valid', () => {
  const operations = [...readme().matchAll(/```graphql\n([^]*?)```/g)].map((match) => match[1] ?? '');
  assert.ok(operations.length >= 7);
  for (const operation of operations) assert.deepEqual(validate(schema, parse(operation)), [], operation);
  for (const operation of operations.filter((text) => text.startsWith('mutation')))
    assert.match(operation, /\.\.\. on UserError/);
});

test('the README has the configuration table of the code', () => {
  assert.equal(marked.exec(readme())?.[0], table(), 'run: node test/docs.test.ts --write');
});

test('.env.example is the one of the code', () => {
  assert.equal(readFileSync(file('.env.example'), 'utf8'), envExample(), 'run: node test/docs.test.ts --write');
});

test('the README names every room, and the commands that exist', () => {
  const { scripts } = JSON.parse(readFileSync(file('package.json'), 'utf8')) as { scripts: Record<string, string> };
  for (const [, name = ''] of readme().matchAll(/npm run (\w+)/g)) assert.ok(scripts[name], `npm run ${name}`);
});
