// docs/statements.md is true: every statement names tests that exist, and whether they ran is checked at the end of a
// whole run (test/run.ts).
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { listUnshown, readStatements } from '../support/statements.ts';
import { newJob, openStore } from '../support/store.ts';

const root = resolve(import.meta.dirname, '../..');
const statements = readStatements();

test('every statement has a test, or says that none shows it yet', (context) => {
  assert.ok(statements.length >= 20);
  for (const { text, tests, isOpen } of statements) {
    assert.equal(isOpen, tests.length === 0, text);
    if (isOpen) context.diagnostic(`not shown yet: ${text}`);
  }
  const texts = statements.map(({ text }) => text);
  assert.equal(new Set(texts).size, texts.length, 'each is said once');
});

test('every test that is named exists', () => {
  for (const { file, name } of statements.flatMap(({ tests }) => tests)) {
    assert.ok(existsSync(join(root, file)), file);
    assert.ok(
      patternsOf(file).some((pattern) => pattern.test(name)),
      `${file} has no test "${name}"`,
    );
  }
});

test('a named test that did not run is told, when its file ran', () => {
  const [first] = statements.flatMap(({ tests }) => tests);
  assert.ok(first);
  assert.deepEqual(
    listUnshown(new Map(), () => false),
    [],
  );
  const unshown = listUnshown(new Map([[join(root, first.file), new Set<string>()]]), () => false);
  assert.ok(unshown.some((line) => line.includes(`${first.file} › ${first.name}`)));
  const named = statements.flatMap(({ tests }) => tests).length;
  assert.equal(listUnshown(new Map(), () => true).length, named, 'of a whole run every file is expected');
});

test('v2.1 gives a job the documented values, each with its source', async () => {
  const store = await openStore({ engine: 'embedded' });
  try {
    const { resolved, defaultsVersion } = await newJob(store);
    assert.equal(defaultsVersion, 'v2.1');
    const documented = resolved.filter(({ source }) => source === 'DEFAULT').map(({ path, value }) => [path, value]);
    assert.deepEqual(Object.fromEntries(documented), {
      'hyperparams.batch_size': 32,
      'hyperparams.early_stopping.patience': 5,
      'hyperparams.epochs': 5,
      'hyperparams.gradient_accumulation_steps': 1,
      'hyperparams.lr': 3e-5,
      'hyperparams.lr_scheduler': 'cosine',
    });
  } finally {
    await store.close();
  }
});

/** The names of a file's tests; a name that is put together at run time matches whatever may stand in its gaps. */
function patternsOf(file: string): RegExp[] {
  const source = readFileSync(join(root, file), 'utf8');
  const names = [...source.matchAll(/\b(?:test|suite)\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g)].map(
    (match) => match[2] ?? '',
  );
  return names.map((name) => {
    const parts = name.split(/\$\{[^}]*\}/).map((part) => part.replace(/\\(.)/g, '$1'));
    return new RegExp(`^${parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.+')}$`);
  });
}
