// Series for charts, from the points of a job, or from its windows when the points are gone or too
// many. A chunk holds points of all metrics of the job, so one scan of the chunks serves all series
// that an operation asks of a job.
import { and, asc, eq, type SQL, sql } from 'drizzle-orm';
import type { Attempt } from '../attempt/attempt.ts';
import type { Db } from '../database/database.ts';
import { Refusal } from '../errors.ts';
import type { Job } from '../job/job.ts';
import { giveWay } from '../turns.ts';
import {
  addPoint,
  addWindow,
  type Collector,
  finish,
  newCollector,
  type Series,
  type SeriesRequest,
} from './collector.ts';
import { listMerged } from './merged.ts';
import { countPoints } from './metric.ts';
import { holdsPoints, type Retention } from './retention.ts';
import { finishInTurns } from './stepwise.ts';
import { metricChunk } from './table.ts';
import { planByCount } from './window-plan.ts';
import type { StoredValue } from './window.ts';

/**
 * Upper bound of the points of a job, over all its metrics. A job with more gets its series from
 * windows, since a scan parses every point.
 */
export const maxPointsOfJob = 1_000_000;
const maxWindows = 20_000;
/** Approximate bytes of chunks that one query should bring. */
const bytesPerQuery = 1024 * 1024;
const pageOfWindows = 1_000;

export type SeriesSource = {
  job: Job;
  /** All attempts of the job. */
  attempts: readonly Attempt[];
  retention: Retention;
  /** Aborts the scan when its operation is over. */
  signal?: AbortSignal;
};

/**
 * Reads the requested series, in the same order. A Refusal in the place of a series says why it
 * cannot be read.
 */
export async function readSeries(
  db: Db,
  source: SeriesSource,
  requests: readonly SeriesRequest[],
): Promise<(Series | Refusal)[]> {
  const { total, counts } = await countPoints(
    db,
    source.job.id,
    requests.map(({ name }) => name),
  );
  const fromPoints = total <= maxPointsOfJob && (await holdsPoints(db, source.job, source.retention));
  const series = new Map<SeriesRequest, Series | Refusal>();
  if (!fromPoints) {
    for (const request of requests) series.set(request, await fromWindows(db, source, request));
  }
  for (let rest = fromPoints ? [...requests] : []; rest.length > 0;) {
    // A scan collects series with at most `maxPointsOfJob` points together, however many series are
    // requested.
    let points = 0;
    const first = rest.findIndex(({ name }) => (points += counts.get(name) ?? 0) > maxPointsOfJob);
    const now = rest.splice(0, first === -1 ? rest.length : Math.max(1, first));
    const collectors = now.map((request) => ({ request, collector: newCollector(request, source.attempts) }));
    await scanChunks(
      db,
      source,
      Map.groupBy(collectors, ({ request }) => request.name),
    );
    for (const { request, collector } of collectors) {
      series.set(request, await finishInTurns(finish(request, collector, null), source.signal));
    }
  }
  return requests.map((request) => series.get(request) ?? emptySeries());
}

function emptySeries(): Series {
  return { x: [], y: [], yMin: null, yMax: null, nonFinite: [], sourceCount: 0, windowSeconds: null };
}

type StoredEntry = [name: string, value: StoredValue, step: number | null, epoch: number | null, time: number];

async function scanChunks(
  db: Db,
  { job, signal }: SeriesSource,
  collectors: Map<string, { collector: Collector }[]>,
): Promise<void> {
  let after: SQL | undefined;
  for (let limit = 16; ;) {
    signal?.throwIfAborted();
    const chunks = await db
      .select()
      .from(metricChunk)
      .where(and(eq(metricChunk.jobId, job.id), after))
      .orderBy(asc(metricChunk.attempt), asc(metricChunk.first))
      .limit(limit);
    let bytes = 0;
    for (const { attempt, body } of chunks) {
      const turn = giveWay();
      if (turn) await turn;
      bytes += body.length;
      for (const [name, value, step, epoch, time] of JSON.parse(body.toString()) as StoredEntry[]) {
        for (const { collector } of collectors.get(name) ?? [])
          addPoint(collector, { step, epoch, time, value, attempt });
      }
    }
    const last = chunks.at(-1);
    if (!last || chunks.length < limit) return;
    after = sql`(${metricChunk.attempt}, ${metricChunk.first}) > (${last.attempt}::integer, ${last.first}::bigint)`;
    limit = Math.min(4_096, Math.max(16, Math.floor((bytesPerQuery * chunks.length) / bytes)));
  }
}

async function fromWindows(db: Db, source: SeriesSource, request: SeriesRequest): Promise<Series | Refusal> {
  const { job, attempts, retention } = source;
  if (request.x === 'EPOCH') {
    return new Refusal('BAD_USER_INPUT', 'x is EPOCH; of this series only windows can be read, which hold no epochs.', {
      path: ['x'],
      hint: 'Pass STEP, TIME or RELATIVE_TIME.',
    });
  }
  const range = { name: request.name };
  const plan = await planByCount(db, job, range, maxWindows, retention);
  const collector: Collector = { ...newCollector(request, attempts), low: [], high: [] };
  for (let after: number[] | undefined; ;) {
    source.signal?.throwIfAborted();
    const { windows, limit } = await listMerged(db, plan, range, { limit: pageOfWindows, backward: false, after });
    for (const window of windows.slice(0, limit)) addWindow(collector, window);
    const last = windows[limit - 1];
    if (!last || windows.length <= limit) break;
    after = [last.start, last.attempt];
  }
  return finishInTurns(finish(request, collector, plan.seconds), source.signal);
}
