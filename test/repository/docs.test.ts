// The documents are true: their operations are valid, what is made from the code is what the code says, and every link,
// command and file that they name is there.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import type { Command } from 'commander';
import { parse, validate } from 'graphql';
import { generatedDocs } from '../../scripts/generated-docs.ts';
import { commandVariables } from '../../src/cli/command-variables.ts';
import { createProgram } from '../../src/cli/program.ts';
import { runnerVariables } from '../../src/cli/serve/runner-variables.ts';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { variables } from '../../src/variables.ts';

const root = resolve(import.meta.dirname, '../..');
const folders = ['src', 'test', 'docs', 'scripts', 'bench', 'examples', 'drizzle', 'docker', 'bin'];
const read = (name: string) => readFileSync(join(root, name), 'utf8');

/** Every file of the repository, by its path from the root. */
const files = [...readdirSync(root), ...folders.flatMap((folder) => filesIn(folder))];
const documents = files.filter((name) => name.endsWith('.md'));

function filesIn(folder: string): string[] {
  const names = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
  return names.filter((name) => !/(^|\/)node_modules(\/|$)/.test(name)).map((name) => join(folder, name));
}

test('every operation in the documents is valid', () => {
  const operations = documents.flatMap((name) =>
    [...read(name).matchAll(/```graphql\n([^]*?)```/g)].map((match) => match[1] ?? ''),
  );
  assert.ok(operations.length >= 8);
  for (const operation of operations) assert.deepEqual(validate(schema, parse(operation)), [], operation);
  for (const operation of operations.filter((text) => text.startsWith('mutation')))
    assert.match(operation, /\.\.\. on UserError/);
});

for (const [name, text] of Object.entries(generatedDocs())) {
  test(`${name} is the one of the code`, () => assert.equal(read(name), text, 'run: npm run docs'));
}

test('every variable that the command line reads is in a table', () => {
  const known = new Set(Object.keys({ ...variables, ...runnerVariables, ...commandVariables }));
  const sources = files.filter((name) => name.startsWith('src/cli/') && name.endsWith('.ts'));
  const unknown = sources.flatMap((name) =>
    [...read(name).matchAll(/\benv(?:\.|\[')([A-Z][A-Z_]+)|const \{([A-Z_, ]+)\} = process\.env/g)]
      .flatMap(([, one, several]) => one ?? several?.match(/[A-Z_]+/g) ?? [])
      .filter((variable) => !known.has(variable))
      .map((variable) => `${name} reads ${variable}`),
  );
  assert.deepEqual(unknown, []);
});

test('docs/architecture.md names every room', () => {
  const text = read('docs/architecture.md');
  const rooms = readdirSync(join(root, 'src'), { withFileTypes: true });
  const missing = rooms.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name));
  assert.deepEqual(
    missing.filter((room) => !text.includes(`\`${room}\``)),
    [],
  );
});

test('every document in docs/ is in the README', () => {
  const readme = read('README.md');
  const missing = documents.filter((name) => name.startsWith('docs/') && !readme.includes(`](${name})`));
  assert.deepEqual(missing, []);
});

test('every astraml command that the documents name exists, with its flags', () => {
  const program = createProgram(() => {});
  const missing = documents.flatMap((name) =>
    [...read(name).matchAll(/\bastraml((?: [a-z][a-z-]*)+)([^\n`|#]*)/g)]
      .filter(([, words = '', rest = '']) => !isCommand(program, words.trim().split(' '), rest))
      .map(([line]) => `${name}: ${line}`),
  );
  assert.deepEqual(missing, []);
});

test('every script that the documents name exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const missing = documents.flatMap((name) =>
    [...read(name).matchAll(/npm run ([\w:-]+)/g)]
      .filter(([, script = '']) => !scripts[script])
      .map(([command]) => `${name}: ${command}`),
  );
  assert.deepEqual(missing, []);
});

test('every relative link and every anchor leads somewhere', () => {
  const broken = documents.flatMap((name) =>
    linksOf(read(name))
      .filter((target) => !leadsSomewhere(name, target))
      .map((target) => `${name}: ${target}`),
  );
  assert.deepEqual(broken, []);
});

test('every file that the documents name exists', () => {
  // What has changed since then names files that were.
  const present = documents.filter((name) => name !== 'CHANGELOG.md');
  const missing = present.flatMap((name) =>
    pathsOf(read(name))
      .filter((path) => !isThere(name, path))
      .map((path) => `${name}: ${path}`),
  );
  assert.deepEqual(missing, []);
});

/** Whether the first of the words are a command; the others are arguments. Flags stand in `rest`. */
function isCommand(program: Command, words: readonly string[], rest: string): boolean {
  let command = program;
  for (const word of words) {
    const next = command.commands.find((one) => one.name() === word);
    if (!next && command.commands.length > 0) return false;
    command = next ?? command;
  }
  const flags = [...rest.matchAll(/(?<= )--[a-z][a-z-]*/g)].map(([flag]) => flag);
  const options = [...command.options, ...program.options].flatMap(({ long }) => long ?? []);
  return flags.every((flag) => options.includes(flag) || flag === '--help');
}

/** Targets of the links in a document that lead to a file beside it, or within it. */
function linksOf(text: string): string[] {
  const targets = [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1] ?? '');
  return targets.filter((target) => !/^[a-z]+:/.test(target));
}

function leadsSomewhere(name: string, target: string): boolean {
  const [path = '', anchor] = target.split('#');
  const file = path === '' ? name : relative(root, resolve(root, dirname(name), path));
  if (!existsSync(join(root, file))) return false;
  return anchor === undefined || anchorsOf(read(file)).includes(anchor);
}

/** The anchors that GitHub gives to the headings of a document. */
function anchorsOf(text: string): string[] {
  const headings = [...text.replace(/^```[^]*?^```/gm, '').matchAll(/^#+ (.*)$/gm)].map((match) => match[1] ?? '');
  const slugs = headings.map((heading) =>
    heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-'),
  );
  return slugs.map((slug, index) => {
    const before = slugs.slice(0, index).filter((other) => other === slug).length;
    return before === 0 ? slug : `${slug}-${before}`;
  });
}

function withoutCode(text: string): string {
  return text.replace(/^```[^]*?^```/gm, '').replace(/`[^`\n]*`/g, '');
}

/** Files that a document names, in sentences, drawings and code alike, and folders in code spans. */
function pathsOf(text: string): string[] {
  const named = text.matchAll(
    /(?<![\w./@:*>-])((?:[\w.-]+\/)*[\w.-]*\w\.(?:ts|mjs|md|html|graphql|cfg|acl|yml))(?![\w/-])/g,
  );
  const inFolders = text.matchAll(new RegExp(`\`((?:${folders.join('|')})/[\\w./-]*)\``, 'g'));
  return [...named, ...inFolders].map((match) => match[1] ?? '');
}

/** A path is told from the root, from `src/`, from the document's own folder, or by the name of the file alone. */
function isThere(name: string, path: string): boolean {
  const places = [path, join('src', path), join(dirname(name), path)];
  if (places.some((place) => existsSync(join(root, place)))) return true;
  return !path.includes('/') && files.some((file) => basename(file) === path);
}
