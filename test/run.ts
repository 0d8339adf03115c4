// Runs the tests: `node test/run.ts [files…]`, of all rooms when none is named, and with `--product` those of whole
// installations, test/product, which take most of the time. Beyond what node:test fails, it fails when nothing ran, when a file never ends, when a process or a temporary file of the run is left at its
// end, when a test that docs/statements.md names did not run (of the files that were named), and under CI=true when a
// test is skipped for a reason that support/absent.ts does not list.
import {
  chmodSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { spawnSync } from 'node:child_process';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { run } from 'node:test';
import { type TestEvent, spec } from 'node:test/reporters';
import { isListed } from './support/absent.ts';
import { guard } from './support/guard.ts';
import { type Process, listProcesses, listProcessesOf } from './support/processes.ts';
import { listUnshown } from './support/statements.ts';
import { until } from './support/until.ts';

const root = resolve(import.meta.dirname, '..');
/** For one file: its process is killed then. A test that says no `timeout` of its own has a fifth of it. */
const fileTimeoutMs = Number(process.env.ASTRAML_TEST_FILE_TIMEOUT_MS ?? 300_000);
/** As the binary itself loads: half the time of a file's imports. */
const execArgv = ['--import', join(root, 'bin/drizzle-paths.mjs')];
/** What ends just now is given this long. */
const settleMs = Number(process.env.ASTRAML_TEST_SETTLE_MS ?? 8_000);

interface Counts {
  tests: number;
  suites: number;
  passed: number;
  failed: number;
  cancelled: number;
  skipped: number;
  todo: number;
}

const counts: Counts = { tests: 0, suites: 0, passed: 0, failed: 0, cancelled: 0, skipped: 0, todo: 0 };
/** Names of the tests that ran, by file. */
const ran = new Map<string, Set<string>>();
const skips: { name: string; reason: string }[] = [];
const overdue: string[] = [];
/** How long each file took. */
const secondsOf = new Map<string, number>();
/** So many of the slowest are named at the end. */
const slowestNamed = 20;
/** What takes longest begins first, so that no lane ends long after the others. A run names its slowest files. */
const longest = [
  'agent/process',
  'database/database',
  'gateway/shared-execution',
  'agent/supervisor',
  'gateway/budgets',
  'gateway/hostile',
  'intake/bulk',
  'gateway/codes',
  'repository/support',
].map((name) => join(root, 'test', `${name}.test.ts`));
const startedAt = performance.now();

const named = process.argv.slice(2).filter((argument) => argument !== '--product');
const isProduct = process.argv.includes('--product');
/** Whether a file, as a path from the root, belongs to the group that was asked for. */
const isOfGroup = (file: string) => file.startsWith('test/product/') === isProduct;
const files = listFiles();
const folder = makeFolder();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => void abandon(signal));

const clock = setInterval(endOverdueFiles, 1_000, new Map<number, number>());
await pipeline(Readable.from(runAll()), new spec(), process.stdout, { end: false });
clearInterval(clock);
const problems = [...(await listLeftovers()), ...listProblems()];
cleanUp(listProcessesOf(folder.path));
printSummary(problems);
process.exitCode = counts.failed + counts.cancelled > 0 || problems.length > 0 ? 1 : 0;

// Files whose name says `alone` measure time: nothing else runs beside them. Those that say `waits` wait for leases nearly
// all of their time: three at once leave the machine idle.
async function* runAll(): AsyncGenerator<TestEvent> {
  const isOf = (kind: string) => (file: string) => file.endsWith(`.${kind}.test.ts`);
  const [alone, waits] = [files.filter(isOf('alone')), files.filter(isOf('waits'))];
  yield* runFiles(
    files.filter((file) => !alone.includes(file) && !waits.includes(file)),
    Math.max(2, Math.min(4, availableParallelism())),
  );
  yield* runFiles(waits, 3);
  yield* runFiles(alone, 1);
}

async function* runFiles(some: string[], concurrency: number): AsyncGenerator<TestEvent> {
  if (some.length === 0) return;
  const timeout = Math.ceil(fileTimeoutMs / 5);
  for await (const event of run({ files: some, concurrency, timeout, cwd: root, execArgv })) {
    if (event.type === 'test:summary') {
      if (event.data.file === undefined) addCounts(event.data.counts);
      else secondsOf.set(relative(root, event.data.file), Math.round(event.data.duration_ms / 1000));
      continue;
    }
    if (event.type === 'test:pass' && event.data.skip !== undefined) {
      skips.push({ name: event.data.name, reason: skipReason(event.data.skip) });
    }
    if ((event.type === 'test:pass' || event.type === 'test:fail') && event.data.file) {
      ran.set(event.data.file, (ran.get(event.data.file) ?? new Set()).add(event.data.name));
    }
    if (!isSummaryLine(event)) yield event;
  }
}

function skipReason(skip: string | boolean): string {
  return typeof skip === 'string' && skip !== '' ? skip : 'no reason given';
}

/** Whole installations that are killed and healed take longer: their files have twice the time. */
function limitOf(file: string): number {
  return /\.(alone|waits)\.test\.ts$/.test(file) ? 2 * fileTimeoutMs : fileTimeoutMs;
}

// node:test ends a test that takes too long, but waits for ever for its process.
function endOverdueFiles(since: Map<number, number>): void {
  for (const { pid, parent, command } of listProcesses()) {
    const file = parent === process.pid ? files.find((name) => command.endsWith(name)) : undefined;
    if (!file) continue;
    const start = since.get(pid) ?? Date.now();
    since.set(pid, start);
    if (Date.now() - start < limitOf(file)) continue;
    overdue.push(file);
    process.kill(pid, 'SIGKILL');
  }
}

// node:test says its summary once a run, and we run up to three times: ours is printed at the very end.
function isSummaryLine(event: TestEvent): boolean {
  const names = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/;
  return event.type === 'test:diagnostic' && event.data.nesting === 0 && names.test(event.data.message);
}

function addCounts(some: Counts): void {
  for (const name of ['tests', 'suites', 'passed', 'failed', 'cancelled', 'skipped', 'todo'] as const) {
    counts[name] += some[name];
  }
}

function listFiles(): string[] {
  if (named.length > 0) return named.map((file) => resolve(file));
  const all = globSync('test/**/*.test.ts', { cwd: root })
    .filter(isOfGroup)
    .sort()
    .map((file) => join(root, file));
  return [...longest.filter((file) => all.includes(file)), ...all.filter((file) => !longest.includes(file))];
}

// One folder for all that the run writes: what is left in it was left by a test. A server of ours runs as another
// user, who has to get through it.
function makeFolder(): { path: string; done(): void } {
  const path = realpathSync(mkdtempSync(join(tmpdir(), 'astraml-test-')));
  chmodSync(path, 0o711);
  mkdirSync(join(path, 'shared'), { mode: 0o755 });
  const watchdog = guard({ name: 'the test run', folder: path });
  for (const name of Object.keys(process.env)) {
    if (/^(PG|ASTRAML_|DATABASE_URL$|REDIS_URL$)/.test(name) && !name.startsWith('ASTRAML_TEST_')) {
      delete process.env[name]; // a developer's settings change no test
    }
  }
  Object.assign(process.env, {
    TMPDIR: path,
    ASTRAML_TEST_SHARED: join(path, 'shared'),
    NODE_COMPILE_CACHE: join(path, 'shared', 'compiled'),
  });
  delete process.env.NODE_TEST_CONTEXT;
  return { path, done: () => watchdog.release() };
}

async function listLeftovers(): Promise<string[]> {
  const found = () => listProcessesOf(folder.path).filter(({ parent }) => parent !== process.pid);
  await until(() => found().length === 0, { timeoutMs: settleMs, everyMs: 100 }).catch(() => {});
  const left = readdirSync(folder.path).filter((name) => name !== 'shared');
  return [
    ...found().map(({ pid, command }) => `a process was left: ${pid} ${command}`),
    ...left.map((name) => `a temporary file was left: ${name}`),
  ];
}

function listProblems(): string[] {
  const quiet = process.env.CI === 'true' ? skips.filter(({ reason }) => !isListed(reason)) : [];
  return [
    ...overdue.map((file) => `not ended within ${limitOf(file)} ms, and killed: ${file}`),
    ...quiet.map(
      ({ name, reason }) => `skipped for a reason that test/support/absent.ts does not list: ${name} (${reason})`,
    ),
    ...listUnshown(ran, (file) => named.length === 0 && isOfGroup(file)),
    ...(counts.passed + counts.failed + counts.cancelled === 0 ? ['nothing ran'] : []),
  ];
}

function cleanUp(left: Process[]): void {
  for (const { pid } of left) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // it ended meanwhile
    }
  }
  // What a killed file had mounted there, e.g. a small disk, would keep the folder from being removed.
  const mounts = existsSync('/proc/mounts') ? readFileSync('/proc/mounts', 'utf8').split('\n') : [];
  const own = mounts.flatMap((line) => line.split(' ')[1] ?? []).filter((path) => path.startsWith(`${folder.path}/`));
  if (own.length > 0) spawnSync('umount', ['--lazy', ...own]);
  rmSync(folder.path, { recursive: true, force: true, maxRetries: 5 });
  folder.done();
}

function abandon(signal: NodeJS.Signals): never {
  console.error(`\nended by ${signal}`);
  cleanUp(listProcessesOf(folder.path));
  process.exit(1);
}

function printSummary(problems: string[]): void {
  const failed = counts.failed + counts.cancelled || problems.length;
  for (const { name, reason } of skips) console.log(`﹣ skipped: ${name} (${reason})`);
  if (named.length > 0) console.log('﹣ docs/statements.md: compared with the files that were named only');
  const slowest = [...secondsOf].toSorted(([, a], [, b]) => b - a).slice(0, slowestNamed);
  if (named.length === 0)
    console.log(`ℹ slowest: ${slowest.map(([file, seconds]) => `${file} ${seconds} s`).join(', ')}`);
  for (const problem of problems) console.log(`✖ ${problem}`);
  const lines = {
    tests: counts.tests,
    suites: counts.suites,
    pass: counts.passed,
    fail: failed - counts.cancelled,
    cancelled: counts.cancelled,
    skipped: counts.skipped,
    todo: counts.todo,
    duration_ms: Math.round(performance.now() - startedAt),
  };
  for (const [name, value] of Object.entries(lines)) console.log(`ℹ ${name} ${value}`);
  console.log(`${counts.passed} passed, ${failed} failed, ${counts.skipped} skipped`);
}
