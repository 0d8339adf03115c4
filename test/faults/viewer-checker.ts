// The judge of what subscribers saw: everything that is stored, once, in order.
import type postgres from 'postgres';
import type { Accuse, LogItem } from './evidence.ts';
import { projectId } from './submitters.ts';
import type { Seen } from './subscribers.ts';

type Sql = postgres.Sql;

/** Each saw 1 … N in order, once, as it is stored. */
export function checkViewers(
  seen: readonly Seen[],
  logs: ReadonlyMap<string, readonly LogItem[]>,
  accuse: Accuse,
): void {
  for (const view of seen) {
    if (view.kind !== 'events' && !view.done)
      accuse('streams end', `a ${view.kind} stream of ${view.jobId} did not end`);
    if (view.kind !== 'log') continue;
    const stored = logs.get(view.jobId) ?? [];
    const wrong = view.lines.findIndex(({ seq }, index) => seq !== index + 1);
    if (wrong >= 0)
      accuse('subscribers see 1 … N', `${view.jobId}: number ${view.lines[wrong]?.seq} in place ${wrong + 1}`);
    else if (view.done && view.lines.length !== stored.length)
      accuse('subscribers see 1 … N', `${view.jobId}: ${view.lines.length} of ${stored.length} lines`);
    else if (view.lines.some(({ seq, text }) => stored[seq - 1]?.text !== text))
      accuse('subscribers see what is stored', view.jobId);
  }
}

/** The last revision that somebody saw of each window is the stored one. */
export async function checkSeenWindows(sql: Sql, seen: readonly Seen[], accuse: Accuse): Promise<void> {
  for (const view of seen) {
    if (view.kind !== 'windows' || !view.done) continue;
    const last = new Map(view.windows.map((window) => [window.id, window]));
    const count = [...last.values()].reduce((sum, window) => sum + window.count, 0);
    const [stored] = await sql<{ count: number; windows: number }[]>`
      select coalesce(sum((state ->> 'count')::int), 0)::int as count, count(*)::int as windows
      from metric_window where job_id = ${view.jobId} and seconds = 30`;
    if (stored?.count !== count || stored.windows !== last.size)
      accuse(
        'subscribers see every window',
        `${view.jobId}: ${last.size} windows with ${count} points, stored ${stored?.windows} with ${stored?.count}`,
      );
    const revisions = new Map<string, number>();
    for (const { id, revision } of view.windows) {
      if (revision < (revisions.get(id) ?? 0))
        accuse('revisions grow', `${view.jobId}: ${id} went back to ${revision}`);
      revisions.set(id, revision);
    }
  }
}

/** Who followed the project's events saw each once, those of a job in their order. */
export async function checkSeenEvents(sql: Sql, seen: readonly Seen[], accuse: Accuse): Promise<void> {
  const rows = await sql<{ id: string; jobId: string; seq: number }[]>`
    select id, job_id, seq::int from event where project_id = ${projectId} and job_id is not null`;
  const known = new Map(rows.map((row) => [row.id, row]));
  for (const view of seen) {
    if (view.kind !== 'events') continue;
    const unique = new Set(view.ids);
    if (unique.size !== view.ids.length) accuse('events come once', `${view.ids.length - unique.size} came again`);
    const missed = rows.filter(({ id }) => !unique.has(id)).length;
    if (missed > 0) accuse('no event is missed', `${missed} of ${rows.length} did not come`);
    const reached = new Map<string, number>();
    for (const id of view.ids) {
      const row = known.get(id);
      if (!row) continue;
      if (row.seq < (reached.get(row.jobId) ?? 0)) accuse('events come in order', `${row.jobId}: ${row.seq} came late`);
      reached.set(row.jobId, row.seq);
    }
  }
}
