// One run: a world, those who submit and watch, what goes wrong for so many seconds, calm until every job has ended, and
// the judge.
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { createClient } from '../../src/client/client.ts';
import type { Persistence } from '../support/redis.ts';
import { createProject } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { Bystanders } from './bystanders.ts';
import { check, type Figures } from './checker.ts';
import type { Violation } from './evidence.ts';
import { type FaultName, faultNames } from './faults.ts';
import { doHarm, type FaultCounts } from './harm.ts';
import { HostileClients } from './hostile-clients.ts';
import { HostileJobs } from './hostile-jobs.ts';
import { hostileProjectId } from './hostile-kinds.ts';
import { Chance } from './random.ts';
import { projectId, submitJobs, type Submission } from './submitters.ts';
import { type Seen, watchEvents, watchJobs } from './subscribers.ts';
import { Weather } from './weather.ts';
import { Wire } from './wire.ts';
import { startWorld, type World } from './world.ts';

export type RunOptions = {
  seed: number;
  seconds: number;
  persistence: Persistence;
  /** Folder with `bin/astraml.mjs`. */
  product: string;
  /** Only these faults; all when undefined. */
  only?: readonly FaultName[];
  /** Mean time between two faults; a second when undefined. */
  everyMs?: number;
  /** How long jobs may take to end when all is well again; a minute and a half when undefined. */
  calmMs?: number;
  /** 4 s when undefined, so that leases lapse in short runs. */
  leaseSeconds?: number | undefined;
};

export type Result = {
  seed: number;
  persistence: Persistence;
  whenCut: 'continue' | 'stop';
  violations: Violation[];
  figures: Figures;
  faults: FaultCounts;
  /** Rare paths, and how often they were taken. */
  sometimes: Record<Sometimes, number>;
  submissions: number;
  /** Streams followed, and lines that came over them. */
  streams: number;
  delivered: number;
  /** Milliseconds that each line of a bystander waited to be stored while no fault of the infrastructure was on. */
  waitsMs: number[];
  /** What hostile clients were answered with. */
  answers: Record<string, number>;
  /** Seconds from the last fault to the last end of a job. */
  calmSeconds: number;
};

export const sometimes = [
  'duplicates suppressed',
  'holes refused',
  'batches fenced',
  'replays',
  'leases lost',
  'resumes',
  'records refused',
] as const;
export type Sometimes = (typeof sometimes)[number];

const submitters = 3;
const logWatchers = 18;
const eventWatchers = 2;
const calmMs = 90_000;
const startMs = 120_000;
/** A full collection of a gateway's garbage takes a tenth of it. */
const collectMs = 2_000;

export async function runOnce(options: RunOptions): Promise<Result> {
  const chance = new Chance(options.seed);
  const whenCut = options.seed % 2 === 0 ? 'stop' : 'continue';
  const { seed, persistence, product, leaseSeconds = 4 } = options;
  const world = await startWorld({ persistence, product, whenCut, leaseSeconds });
  const submissions: Submission[] = [];
  const seen: Seen[] = [];
  const [submitting, ending, over] = [new AbortController(), new AbortController(), new AbortController()];
  let calm = false;
  const watcher = new Watcher(world.databaseUrl);
  const weather = new Weather();
  const bystanders = new Bystanders(world.databaseUrl, weather);
  const wire = new Wire(world.redis.url);
  try {
    await world.counters.read();
    const baseline = figuresOf(world);
    const client = createClient({ url: `http://127.0.0.1:${world.gateways[0]?.links.front.port}`, token: world.token });
    await createProject(client, projectId);
    await createProject(client, hostileProjectId);
    const clients = await HostileClients.prepare(world, weather, client);
    const submitted = Array.from({ length: submitters }, (_, index) =>
      submitJobs(world, chance.fork(), {
        prefix: `s${seed}-${index}`,
        unfinished: () => watcher.unfinished,
        most: 14,
        signal: submitting.signal,
        submissions,
      }),
    );
    const watch = { submissions, ending: ending.signal, over: over.signal, calm: () => calm, seen };
    const watched = Array.from({ length: logWatchers }, () => watchJobs(world, chance.fork(), watch));
    const events = Array.from({ length: eventWatchers }, () => watchEvents(world, chance.fork(), watch));

    await until(() => bystanders.hasLines, { timeoutMs: startMs, what: 'the first line of a job' });
    const faults = await doHarm(world, chance.fork(), {
      signal: AbortSignal.timeout(options.seconds * 1000),
      mayOverlap: whenCut === 'continue',
      only: options.only ?? faultNames,
      everyMs: options.everyMs ?? 1_000,
      weather,
      jobs: new HostileJobs(seed),
      clients,
    });
    const calmSince = performance.now();
    calm = true;
    submitting.abort();
    await Promise.all(submitted);
    await watcher.untilAllEnded(options.calmMs ?? calmMs);
    const calmSeconds = Math.round((performance.now() - calmSince) / 1000);
    ending.abort();
    await Promise.race([Promise.all(watched), sleep(20_000, undefined, { ref: false })]);
    await sleep(1_500); // the last events are on their way
    over.abort();
    await Promise.all([...watched, ...events]);

    for (const { child } of world.gateways) child.kill('SIGUSR2'); // see collecting.ts
    await sleep(collectMs);
    await world.counters.read();
    const { violations, figures, waitsMs } = await check({
      databaseUrl: world.databaseUrl,
      submissions,
      seen,
      witnessDir: world.witnessDir,
      mayOverlap: whenCut === 'continue',
      bystanders,
    });
    violations.push(...clients.violations, ...wire.violations, ...(await checkProcesses(world, baseline)));
    const figure = (name: string) => world.counters.sum(`astraml_${name}_total`);
    return {
      seed,
      persistence,
      whenCut,
      violations,
      figures,
      faults,
      sometimes: {
        'duplicates suppressed': figure('duplicate_records'),
        'holes refused': figure('holes_refused'),
        'batches fenced': figure('fenced_batches'),
        replays: figure('replays'),
        'leases lost': figures.lost,
        resumes: seen.reduce((sum, { resumes }) => sum + resumes, 0),
        'records refused': figures.refused,
      },
      submissions: submissions.length,
      streams: seen.length,
      delivered: seen.reduce((sum, view) => sum + (view.kind === 'log' ? view.lines.length : 0), 0),
      waitsMs,
      answers: clients.answers,
      calmSeconds,
    };
  } finally {
    for (const controller of [submitting, ending, over]) controller.abort();
    await Promise.all([watcher.stop(), bystanders.stop(), wire.stop()]);
    await world.stop();
  }
}

type Baseline = { fds: number; heapBytes: number };

function figuresOf({ counters }: World): Baseline {
  return {
    fds: counters.highest('process_open_fds'),
    heapBytes: counters.highest('nodejs_heap_size_used_bytes'),
  };
}

/** No process told of a bug, and the gateways stand as they stood at the beginning. */
async function checkProcesses(world: World, before: Baseline): Promise<Violation[]> {
  const violations: Violation[] = [];
  // What the harness does to the database is a bug to whoever asks for a row at that moment.
  const wanted =
    /The harness refuses|read-only transaction|not currently accepting connections|No space left|too many clients/;
  const wrong = /^.*(UnhandledPromise|unhandledRejection|triggerUncaughtException|"msg":"bug").*$(\n.*){0,12}/gm;
  for (const [line] of world.output().matchAll(wrong)) {
    if (!wanted.test(line)) violations.push({ invariant: 'no bug is met', what: line.slice(0, 2_000) });
  }
  const now = figuresOf(world);
  // A pool of connections that has grown to its size is no leak.
  if (now.fds > before.fds + 40)
    violations.push({ invariant: 'sockets are closed', what: `${before.fds} descriptors became ${now.fds}` });
  if (now.heapBytes > before.heapBytes + 128 * 1024 * 1024)
    violations.push({ invariant: 'memory is given back', what: `${before.heapBytes} bytes became ${now.heapBytes}` });
  return violations;
}

/** Looks into the database, as often as it is there, for jobs that have not ended. */
class Watcher {
  unfinished = 0;
  readonly #sql: postgres.Sql;
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  constructor(databaseUrl: string) {
    this.#sql = postgres(databaseUrl, { max: 1, connect_timeout: 2, fetch_types: false, onnotice: () => {} });
    this.#running = this.#run();
  }

  /** Resolves when all have ended, or the time is over: the judge sees what is left. */
  async untilAllEnded(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    await sleep(1_000);
    while (this.unfinished > 0 && performance.now() < deadline) await sleep(200);
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#running;
    await this.#sql.end({ timeout: 2 });
  }

  async #run(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      const look = this.#sql`select count(*)::int as count from job where finished_at is null`.catch(() => null);
      const rows = await Promise.race([look, sleep(3_000, null)]);
      if (rows) this.unfinished = Number(rows[0]?.['count'] ?? 0);
      await sleep(200);
    }
  }
}
