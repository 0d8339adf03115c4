// `npm run generated`: what is generated and committed fits the code it comes from: schema.graphql the API, drizzle/ the
// tables, docs/configuration.md, docs/errors.md and .env.example the tables of variables and codes, package-lock.json the
// dependencies. It works on copies and changes nothing in the tree.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

interface Finished {
  ok: boolean;
  stdout: string;
  /** stdout and stderr */
  output: string;
}

const root = resolve(import.meta.dirname, '..');
const scratch = mkdtempSync(join(tmpdir(), 'astraml-generated-'));
try {
  // Each says what is wrong and what to do, or nothing.
  for (const complaint of [checkSchema(), checkDocs(), checkMigrations(), checkLock()]) {
    if (!complaint) continue;
    console.error(`✖ ${complaint}`);
    process.exitCode = 1;
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function checkSchema(): string | undefined {
  const printed = execute(process.execPath, ['scripts/print-schema.ts', '--stdout']);
  if (!printed.ok) return `The API schema could not be printed:\n${printed.output}`;
  const file = join(root, 'schema.graphql');
  const committed = existsSync(file) ? readFileSync(file, 'utf8') : '';
  if (committed === printed.stdout) return undefined;
  const now = printed.stdout.split('\n');
  const line = committed.split('\n').findIndex((text, index) => text !== now[index]);
  const at = (line === -1 ? committed.split('\n').length : line) + 1;
  return `schema.graphql is not what the code defines (first at line ${at}). Run: npm run schema`;
}

function checkDocs(): string | undefined {
  const { ok, output } = execute(process.execPath, ['scripts/print-docs.ts', '--check']);
  if (ok) return undefined;
  return `Documents are not what the code says, or could not be made. Run: npm run docs\n${output}`;
}

function checkMigrations(): string | undefined {
  const committed = join(root, 'drizzle');
  const copy = join(scratch, 'drizzle');
  mkdirSync(copy);
  if (existsSync(committed)) cpSync(committed, copy, { recursive: true });
  const before = listFiles(copy);
  const config = join(scratch, 'drizzle.config.mjs');
  const original = pathToFileURL(join(root, 'drizzle.config.ts')).href;
  // drizzle-kit joins `out` with the working folder: an absolute path is not understood
  const out = `./${'../'.repeat(root.split('/').length - 1)}${copy.slice(1)}`;
  writeFileSync(config, `import config from '${original}';\nexport default { ...config, out: '${out}' };\n`);
  const generated = execute(process.execPath, [drizzleKit(), 'generate', '--config', config]);
  const written = listFiles(copy).filter((file) => !before.includes(file));
  if (written.length > 0) {
    return `The tables differ from the migrations in drizzle/ (${written.join(', ')} is missing). Run: npm run migration`;
  }
  if (generated.ok && generated.output.includes('No schema changes')) return undefined;
  return `drizzle-kit could not compare the tables with drizzle/. Run: npm run migration\n${generated.output}`;
}

// In a copy: an old npm empties node_modules even on a dry run.
function checkLock(): string | undefined {
  for (const name of ['package.json', 'package-lock.json', '.npmrc']) {
    if (existsSync(join(root, name))) cpSync(join(root, name), join(scratch, name));
  }
  const result = execute('npm', ['ci', '--dry-run', '--ignore-scripts', '--no-audit', '--loglevel=error'], scratch);
  const reasons = result.output.split('\n').filter((line) => / (Missing|Invalid): /.test(line));
  const explanation = reasons.length > 0 ? reasons.join('\n') : result.output;
  return result.ok ? undefined : `package-lock.json does not fit package.json. Run: npm install\n${explanation}`;
}

function drizzleKit(): string {
  return join(root, 'node_modules', 'drizzle-kit', 'bin.cjs');
}

function listFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => !name.endsWith('_journal.json'));
}

function execute(file: string, args: string[], cwd = root): Finished {
  const env = { ...process.env, TMPDIR: scratch };
  const done = spawnSync(file, args, {
    cwd,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
  });
  const problem = done.error ? `${done.error.message}\n` : '';
  return { ok: done.status === 0, stdout: done.stdout ?? '', output: `${problem}${done.stdout}${done.stderr}`.trim() };
}
