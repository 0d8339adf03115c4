// The import rule: a room imports only rooms above it in the list. The folders say the mission; this keeps them honest.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const src = fileURLToPath(new URL('../../src', import.meta.url));

/** From the top of the house down. A room may import itself and what stands above it. */
const rooms = [
  'version.ts',
  'variables.ts',
  'config.ts',
  'errors.ts',
  'closest.ts',
  'metrics-registry.ts',
  'turns.ts',
  'id.ts',
  'shape.ts',
  'actor.ts',
  'database',
  'bus',
  'live',
  'graphql',
  'protocol',
  'replay',
  'spec',
  'event',
  'project',
  'defaults',
  'policy',
  'secret',
  'job',
  'submission',
  'runner',
  'attempt',
  'log',
  'metric',
  'intake',
  'schedule',
  'gateway',
];

/** Beyond the wire, each room names what it may use. */
const beyond: Record<string, string[]> = {
  client: ['errors.ts', 'protocol'],
  agent: ['client', 'protocol', 'errors.ts', 'bus'],
  cli: [
    'client',
    'agent',
    'gateway',
    'config.ts',
    'variables.ts',
    'spec',
    'errors.ts',
    'closest.ts',
    'version.ts',
    'project',
    'protocol',
  ],
  'main.ts': ['cli', 'errors.ts', 'version.ts'],
};

const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
const roomOf = (file: string) => file.split('/')[0] ?? '';

const specifiersOf = (file: string, pattern: RegExp) =>
  [...readFileSync(join(src, file), 'utf8').matchAll(pattern)].map((match) => match[1] ?? '');
/** What a file imports, types and imports at a call among them. */
const importsOf = (file: string) => specifiersOf(file, /(?:from|import)\s*\(?\s*'([^']+)'/g);
/** Programs that a file starts in a process or thread of their own. */
const startsOf = (file: string) => specifiersOf(file, /new URL\(\s*'(\.[^']+\.ts)'/g);

/** Files of `src` among the specifiers. */
function filesOf(file: string, specifiers: readonly string[]): string[] {
  return specifiers
    .filter((name) => name.startsWith('.'))
    .map((name) => relative(src, normalize(join(src, dirname(file), name))))
    .filter((target) => !target.startsWith('..')); // package.json
}

test('a room imports only what stands above it', () => {
  const wrong: string[] = [];
  for (const file of files) {
    const room = roomOf(file);
    const allowed = beyond[room] ?? rooms.slice(0, rooms.indexOf(room));
    assert.ok(beyond[room] ?? rooms.includes(room), `${file} is in no room of the list`);
    for (const target of filesOf(file, [...importsOf(file), ...startsOf(file)])) {
      if (roomOf(target) !== room && !allowed.includes(roomOf(target))) wrong.push(`${file} imports ${target}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('no file imports itself by way of others', () => {
  const done = new Set<string>();
  const visit = (file: string, path: string[]) => {
    assert.ok(!path.includes(file), [...path, file].join(' imports '));
    if (done.has(file)) return;
    for (const target of filesOf(file, importsOf(file))) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
});

test('Pothos is imported by schema.ts files and graphql only, Drizzle by what keeps facts', () => {
  const isSchema = (file: string) => /[/-]schema\.ts$/.test(file);
  const mayPothos = (file: string) => isSchema(file) || roomOf(file) === 'graphql';
  const mayDrizzle = (file: string) =>
    rooms.includes(roomOf(file)) && !['gateway', 'graphql'].includes(roomOf(file)) && !isSchema(file);
  const wrong = files.flatMap((file) =>
    importsOf(file)
      .filter(
        (name) => (name.startsWith('@pothos/') && !mayPothos(file)) || (/^drizzle-orm/.test(name) && !mayDrizzle(file)),
      )
      .map((name) => `${file} imports ${name}`),
  );
  assert.deepEqual(wrong, []);
});

test('only the files of a room write its tables', () => {
  const wrong: string[] = [];
  for (const file of files) {
    const text = readFileSync(join(src, file), 'utf8');
    const writes = text.matchAll(
      /(?:\.(?:insert|update|delete)|\binsertRows)\(\s*(\w+)\s*[,)]|(?:insert into|update|delete from) \$\{(\w+)\}/g,
    );
    for (const [, called, written] of writes) {
      const table = called ?? written ?? '';
      const named = [...text.matchAll(/import (?:type )?\{([^}]*)\} from '([^']+)'/g)];
      const from = named.find(([, names = '']) => names.split(/[\s,]+/).includes(table))?.[2];
      if (from && from !== './table.ts') wrong.push(`${file} writes ${table}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('no file exports a default, and every file opens with what it is for', () => {
  for (const file of files) {
    const text = readFileSync(join(src, file), 'utf8');
    assert.ok(!/^export default/m.test(text), `${file} has a default export`);
    assert.match(text.replace(/^#!.*\n/, ''), /^\/\/ \S/, `${file} does not open with a comment`);
  }
});
