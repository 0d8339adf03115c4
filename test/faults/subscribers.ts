// Those who watch: each follows one stream to its end, is cut off, pauses, and comes back with its cursor at the other
// gateway. What they saw is kept as it came; the checker compares it with what is stored.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Chance } from './random.ts';
import { subscribe } from './socket.ts';
import { projectId, type Submission } from './submitters.ts';
import type { World } from './world.ts';

export type SeenWindow = { id: string; revision: number; count: number; sum: number | null };
export type Seen =
  | { kind: 'log'; jobId: string; done: boolean; resumes: number; lines: { seq: number; text: string }[]; gaps: number }
  | { kind: 'windows'; jobId: string; done: boolean; resumes: number; windows: SeenWindow[] }
  | { kind: 'events'; jobId: null; done: boolean; resumes: number; ids: string[] };

const logText = `subscription ($jobId: ID!, $after: String) { stream: jobLogs(jobId: $jobId, after: $after) {
  lines { seq text } gaps { fromSeq toSeq } endCursor done } }`;
const windowText = `subscription ($jobId: ID!, $after: String) { stream: jobMetrics(jobId: $jobId, after: $after) {
  windows { id revision count sum } endCursor done } }`;
const eventText = `subscription ($projectId: ID!, $after: String) { stream: jobEvents(projectId: $projectId, after: $after) {
  events { id } endCursor done } }`;

type Batch = {
  stream: {
    lines?: { seq: number; text: string }[];
    gaps?: unknown[];
    windows?: SeenWindow[];
    events?: { id: string }[];
    endCursor: string;
    done: boolean;
  };
};

export type WatchOptions = {
  submissions: readonly Submission[];
  /** No new stream is begun any more. */
  ending: AbortSignal;
  /** Streams are given up. */
  over: AbortSignal;
  /** The network is whole: nobody cuts itself off any more. */
  calm(): boolean;
  seen: Seen[];
};

/** Follows one job after another. */
export async function watchJobs(world: World, chance: Chance, options: WatchOptions): Promise<void> {
  while (!options.ending.aborted) {
    const known = options.submissions.slice(-12).flatMap(({ acknowledged }) => [...acknowledged]);
    if (known.length === 0) {
      await sleep(100);
      continue;
    }
    const jobId = chance.of(known);
    const base = { jobId, done: false, resumes: 0 };
    const isLog = chance.is(0.8);
    const seen: Seen = isLog ? { ...base, kind: 'log', lines: [], gaps: 0 } : { ...base, kind: 'windows', windows: [] };
    options.seen.push(seen);
    await follow(world, chance, options, seen);
  }
}

/** Follows the project's events as long as there is anything to come. */
export async function watchEvents(world: World, chance: Chance, options: WatchOptions): Promise<void> {
  const seen: Seen = { kind: 'events', jobId: null, done: false, resumes: 0, ids: [] };
  options.seen.push(seen);
  await follow(world, chance, options, seen);
}

async function follow(world: World, chance: Chance, options: WatchOptions, seen: Seen): Promise<void> {
  let after: string | null = null;
  for (let first = true; !seen.done && !options.over.aborted; first = false) {
    if (!first && after !== null) seen.resumes++;
    const { port } = chance.of(world.gateways).links.front;
    const stream = subscribe({
      url: `ws://127.0.0.1:${port}/graphql`,
      token: world.token,
      query: seen.kind === 'log' ? logText : seen.kind === 'windows' ? windowText : eventText,
      variables: seen.jobId === null ? { projectId, after } : { jobId: seen.jobId, after },
      onNext(data) {
        const { stream: batch } = data as Batch;
        if (seen.kind === 'log') {
          seen.lines.push(...(batch.lines ?? []));
          seen.gaps += batch.gaps?.length ?? 0;
        }
        if (seen.kind === 'windows') seen.windows.push(...(batch.windows ?? []));
        if (seen.kind === 'events') seen.ids.push(...(batch.events ?? []).map(({ id }) => id));
        after = batch.endCursor;
        seen.done = batch.done;
      },
    });
    const onOver = () => stream.cut();
    options.over.addEventListener('abort', onOver, { once: true });
    const trouble = options.calm() ? null : setTimeout(() => disturb(chance, stream), chance.between(100, 4_000));
    const end = await stream.ended;
    if (trouble) clearTimeout(trouble);
    options.over.removeEventListener('abort', onOver);
    if (end === 'cut' && !options.over.aborted) await sleep(chance.between(10, 300));
  }
}

function disturb(chance: Chance, stream: ReturnType<typeof subscribe>): void {
  if (chance.is(0.2)) {
    const ms = chance.between(500, 2_000);
    stream.pause(ms);
    setTimeout(() => stream.cut(), ms + 500).unref();
  } else stream.cut();
}
