// The documents are true: operations of the README are valid, its table and `.env.example` are those of the code.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { isEnumType, parse, validate } from 'graphql';
import { configTable, envExample } from '../src/config.ts';
import { errorTable } from '../src/gateway/explain.ts';
import { schema } from '../src/gateway/schema.ts';

const file = (name: string) => new URL(`../${name}`, import.meta.url);
const readme = () => readFileSync(file('README.md'), 'utf8');

/** What stands between the markers `<!-- name -->` and `<!-- /name -->` of the README. */
const tables: Record<string, () => string> = {
  configuration: configTable,
  errors: errorTable,
  validation: validationTable,
};
const marked = (name: string) => new RegExp(`(?<=<!-- ${name} -->\\n)[^]*(?=<!-- /${name} -->)`);

function validationTable(): string {
  const type = schema.getType('ValidationCode');
  assert.ok(isEnumType(type));
  const rows = type.getValues().map(({ name, description }) => `| \`${name}\` | ${description ?? ''} |`);
  return ['| code | meaning |', '| --- | --- |', ...rows].join('\n');
}

// `node test/docs.test.ts --write` brings them up to date.
if (process.argv.includes('--write')) {
  for (const [name, table] of Object.entries(tables)) {
    writeFileSync(
      file('README.md'),
      readme().replace(marked(name), () => `\n${table()}\n\n`),
    );
  }
  writeFileSync(file('.env.example'), envExample());
}

const access = () => readFileSync(file('docs/access.md'), 'utf8');

test('every operation in the README and in docs/access.md is valid', () => {
  const operations = [...`${readme()}${access()}`.matchAll(/```graphql\n([^]*?)```/g)].map((match) => match[1] ?? '');
  assert.ok(operations.length >= 8);
  for (const operation of operations) assert.deepEqual(validate(schema, parse(operation)), [], operation);
  for (const operation of operations.filter((text) => text.startsWith('mutation')))
    assert.match(operation, /\.\.\. on UserError/);
});

for (const [name, table] of Object.entries(tables)) {
  test(`the README has the ${name} table of the code`, () => {
    assert.equal(marked(name).exec(readme())?.[0], `\n${table()}\n\n`, 'run: node test/docs.test.ts --write');
  });
}

test('.env.example is the one of the code', () => {
  assert.equal(readFileSync(file('.env.example'), 'utf8'), envExample(), 'run: node test/docs.test.ts --write');
});

test('the README names every room, and the commands that exist', () => {
  const { scripts } = JSON.parse(readFileSync(file('package.json'), 'utf8')) as { scripts: Record<string, string> };
  for (const [, name = ''] of readme().matchAll(/npm run (\w+)/g)) assert.ok(scripts[name], `npm run ${name}`);
});
