// Reads the input of placement: the queued jobs, the free GPUs of each runner, and the GPUs that
// each project uses.
import { and, asc, desc, eq, gt, isNull, lte, or, sql, type SQL } from 'drizzle-orm';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import type { Job } from '../job/job.ts';
import { job } from '../job/table.ts';
import { listOnlineRunners, loadRunners, placesOf } from '../runner/runner.ts';
import type { EffectiveSpec } from '../spec/shape.ts';
import { type Cluster, type Machine, type Queued, rank, type Request, weightOf } from './place.ts';
import { attempt, placement } from './table.ts';

/** Number of jobs that a claim looks at, in order of priority and age. */
const queueDepth = 1_000;
/**
 * A runner with a free place that has not claimed for this long hangs: placement counts none of its
 * GPUs as free.
 */
const offerMs = 30_000;

/** Returns the GPUs and labels that a job requires of a runner. */
export function requestOf(row: Pick<Job, 'effective' | 'projectId'>): Request {
  return toRequest(row.projectId, row.effective.resources);
}

type Resources = EffectiveSpec['resources'];

function toRequest(projectId: string, { gpus, gpu_model: gpuModel, labels }: Resources): Request {
  return { projectId, gpus, gpuModel: gpuModel ?? null, labels: labels ?? [] };
}

/**
 * Lists the first 1,000 queued jobs that may run now by the database's clock. With `projectIds`,
 * also the first 1,000 of these projects, however many other jobs are before them.
 */
export async function readQueue(db: Db, projectIds: readonly string[] | null = null): Promise<Queued[]> {
  const ready = or(isNull(job.notBefore), lte(job.notBefore, now));
  const first = await readJobs(db, ready);
  if (projectIds === null || first.length < queueDepth) return first;
  const listedIds = new Set(first.map(({ id }) => id));
  const projectJobs = await readJobs(db, and(ready, isOneOf(job.projectId, projectIds)));
  return [...first, ...projectJobs.filter(({ id }) => !listedIds.has(id))];
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
 * Reads the online runners with their free GPUs, and the GPUs that each project uses. `asking` maps
 * a runner that claims just now to the indexes of the GPUs that it reports as free: such a runner
 * counts as online, whenever it was last seen.
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
    const reported = asking.get(id);
    // A full runner makes no claims, but the GPUs that its attempts do not use are free.
    const offers = attempts.length >= places || (claimedAt !== null && Date.now() - claimedAt.getTime() < offerMs);
    const offered = reported ? indexes.filter((index) => reported.includes(index)) : offers ? indexes : [];
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

/**
 * Lists ids of queued jobs in the order in which they will be placed; jobs that pause before a
 * retry come last. It looks at as many jobs as claims do.
 */
export async function listQueue(db: Db, cluster: Cluster): Promise<string[]> {
  const ready = rank(await readQueue(db), cluster);
  const paused = await readJobs(db, gt(job.notBefore, now), asc(job.notBefore));
  return [...ready, ...paused].map(({ id }) => id);
}

/**
 * Counts the queued jobs before this one by priority and age. It gives the place of a job that is
 * too far back for claims to look at it.
 */
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

/** Counts the running attempts and the queued jobs of all projects. */
export async function countWork(db: Db): Promise<{ attempts: number; queued: number }> {
  const [attempts, queued] = await Promise.all([
    db.$count(attempt, isNull(attempt.finishedAt)),
    db.$count(job, eq(job.state, 'QUEUED')),
  ]);
  return { attempts, queued };
}

/** Milliseconds until the next job that pauses before a retry may run; null when none pauses. */
export async function untilNextRetry(db: Db): Promise<number | null> {
  const [next] = await db
    .select({ ms: sql<number | null>`(extract(epoch from min(${job.notBefore}) - ${now}) * 1000)::float8` })
    .from(job)
    .where(and(eq(job.state, 'QUEUED'), gt(job.notBefore, now)));
  return next?.ms ?? null;
}
