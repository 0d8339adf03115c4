// The queue and the runners as placement sees them: what waits, what is free, who uses how much.
import { and, asc, desc, eq, gt, isNull, lte, or, type SQL, sql } from 'drizzle-orm';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import type { Job } from '../job/job.ts';
import { job } from '../job/table.ts';
import { listOnlineRunners, loadRunners, placesOf } from '../runner/runner.ts';
import type { EffectiveSpec } from '../spec/shape.ts';
import { type Cluster, type Machine, type Queued, rank, type Request, weightOf } from './place.ts';
import { attempt, placement } from './table.ts';

/** Jobs that a claim looks at, in order of priority and age. */
const queueDepth = 1_000;
/** A runner that has a place and has not asked for work for so long offers none of its GPUs: it hangs. */
const offerMs = 30_000;

/** What a job asks of a runner. */
export function requestOf(row: Pick<Job, 'effective' | 'projectId'>): Request {
  return toRequest(row.projectId, row.effective.resources);
}

type Resources = EffectiveSpec['resources'];

function toRequest(projectId: string, { gpus, gpu_model: gpuModel, labels }: Resources): Request {
  return { projectId, gpus, gpuModel: gpuModel ?? null, labels: labels ?? [] };
}

/**
 * Queued jobs that may run now by the database's clock, the first of the queue. For a runner of some projects also the first
 * of theirs, however many jobs of others stand before them.
 */
export async function readQueue(db: Db, projectIds: readonly string[] | null = null): Promise<Queued[]> {
  const ready = or(isNull(job.notBefore), lte(job.notBefore, now));
  const first = await readJobs(db, ready);
  if (projectIds === null || first.length < queueDepth) return first;
  const known = new Set(first.map(({ id }) => id));
  const theirs = await readJobs(db, and(ready, isOneOf(job.projectId, projectIds)));
  return [...first, ...theirs.filter(({ id }) => !known.has(id))];
}

async function readJobs(db: Db, condition: SQL | undefined, ...first: SQL[]): Promise<Queued[]> {
  const rows = await db
    .select({
      id: job.id,
      projectId: job.projectId,
      priority: job.priority,
      createdAt: job.createdAt,
      leftOut: job.leftOut,
      resources: sql<Resources>`${job.effective} -> 'resources'`,
    })
    .from(job)
    .where(and(eq(job.state, 'QUEUED'), condition))
    .orderBy(...first, desc(job.priority), asc(job.createdAt), asc(job.id))
    .limit(queueDepth);
  return rows.map(({ createdAt, resources, projectId, ...row }) => {
    return { ...row, submittedAt: createdAt.getTime(), request: toRequest(projectId, resources) };
  });
}

/**
 * The runners that are there with what they offer, and what projects use. `asking` has the indexes of the GPUs that
 * runners have free by their own account, by id: those that ask for work just now are there, however long ago they were
 * heard.
 */
export async function readCluster(
  db: Db,
  asking: ReadonlyMap<string, readonly number[]> = new Map(),
): Promise<Cluster> {
  const online = await listOnlineRunners(db);
  const listed = new Set(online.map(({ id }) => id));
  const unlisted = [...asking.keys()].filter((id) => !listed.has(id));
  const runners = unlisted.length === 0 ? online : [...online, ...(await loadRunners(db, unlisted)).values()];
  const active = await db
    .select({ runnerId: attempt.runnerId, gpus: attempt.gpus, projectId: job.projectId })
    .from(attempt)
    .innerJoin(job, eq(job.id, attempt.jobId))
    .where(isNull(attempt.finishedAt));
  const [turn] = await db.select().from(placement);
  const inUse = new Map<string, number>();
  for (const { projectId, gpus } of active) inUse.set(projectId, (inUse.get(projectId) ?? 0) + weightOf(gpus.length));
  const busy = Map.groupBy(active, ({ runnerId }) => runnerId);
  const machines = runners.map(({ claimedAt, ...runner }): Machine => {
    const { id, gpus, labels, projectIds } = runner;
    const [places, attempts] = [placesOf(runner), busy.get(id) ?? []];
    const indexes = gpus.map(({ index }) => index);
    const asked = asking.get(id);
    // A full runner does not ask, and its GPUs are free all the same.
    const offers = attempts.length >= places || (claimedAt !== null && Date.now() - claimedAt.getTime() < offerMs);
    const offered = asked ? indexes.filter((index) => asked.includes(index)) : offers ? indexes : [];
    const taken = new Set(attempts.flatMap((row) => row.gpus));
    return {
      id,
      gpus,
      labels,
      projectIds,
      places,
      placesBusy: attempts.length,
      free: offered.filter((index) => !taken.has(index)),
    };
  });
  return { machines, inUse, sinceOldest: turn?.sinceOldest ?? 0 };
}

/** Ids of queued jobs in the order in which they are served, as far as claims look; those that pause come last. */
export async function listQueue(db: Db, cluster: Cluster): Promise<string[]> {
  const ready = rank(await readQueue(db), cluster);
  const paused = await readJobs(db, gt(job.notBefore, now), asc(job.notBefore));
  return [...ready, ...paused].map(({ id }) => id);
}

/** Queued jobs before this one by priority and age: the place of a job that no claim looks at yet. */
export async function countBefore(db: Db, { priority, createdAt, id }: Job): Promise<number> {
  const older = or(
    sql`${job.createdAt} < ${createdAt.toISOString()}::timestamptz`,
    and(eq(job.createdAt, createdAt), sql`${job.id} < ${id}`),
  );
  return db.$count(
    job,
    and(eq(job.state, 'QUEUED'), or(gt(job.priority, priority), and(eq(job.priority, priority), older))),
  );
}

/** How many attempts run, and how many jobs wait, in all projects. */
export async function countWork(db: Db): Promise<{ attempts: number; queued: number }> {
  const [attempts, queued] = await Promise.all([
    db.$count(attempt, isNull(attempt.finishedAt)),
    db.$count(job, eq(job.state, 'QUEUED')),
  ]);
  return { attempts, queued };
}

/** Milliseconds until a job that pauses may run again; null when none does. */
export async function untilNextRetry(db: Db): Promise<number | null> {
  const [next] = await db
    .select({ ms: sql<number | null>`(extract(epoch from min(${job.notBefore}) - ${now}) * 1000)::float8` })
    .from(job)
    .where(and(eq(job.state, 'QUEUED'), gt(job.notBefore, now)));
  return next?.ms ?? null;
}
