// How many bytes jobs are: most are small, but a spec may be as long as a body, and a row holds it about four times. Lists
// are read in slices, so that one request never brings a hundred of those at once.
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import type { Job } from './job.ts';
import { jobPosition, type JobsRequest, listJobs } from './list.ts';

/** As sent, effective, resolved with its paths and sources, and the notes in each. */
const copiesOfSpec = 4;
const rowBytes = 1_000;
/** Jobs of the first slice: it tells how long the others may be. */
export const firstSlice = 8;
/** Bytes after which a page of jobs ends. */
export const maxPageBytes = 4 * 1024 * 1024;

/** About what a job takes in memory. */
export function bytesOfJob({ spec }: Job): number {
  return copiesOfSpec * JSON.stringify(spec).length + rowBytes;
}

export function bytesOfJobs(jobs: readonly Job[]): number {
  return jobs.reduce((sum, job) => sum + bytesOfJob(job), 0);
}

/** How many jobs the next slice may hold, one at least, by those that were read. */
export function nextSlice(jobs: readonly Job[], left: number): number {
  const bytes = bytesOfJobs(jobs);
  const fitting = Math.floor((maxPageBytes - bytes) / (bytes / Math.max(1, jobs.length)));
  return Math.max(1, Math.min(left, fitting));
}

/** Like `listJobs`; `isCut` when the page ends before its limit because of its bytes. */
export async function listJobsInSlices(
  db: Db,
  actor: Actor,
  request: JobsRequest,
): Promise<{ jobs: Job[]; isCut: boolean }> {
  const { field, backward, limit } = request;
  const jobs: Job[] = [];
  for (let take = Math.min(firstSlice, limit + 1); ;) {
    const [first, last] = [jobs[0], jobs.at(-1)];
    const place =
      !first || !last ? {} : backward ? { before: jobPosition(first, field) } : { after: jobPosition(last, field) };
    const slice = await listJobs(db, actor, { ...request, ...place, limit: take - 1 });
    const known = new Set(jobs.map(({ id }) => id)); // one that moved in the order meanwhile may come again
    const fresh = slice.filter(({ id }) => !known.has(id));
    jobs.splice(backward ? 0 : jobs.length, 0, ...fresh);
    if (slice.length < take || jobs.length > limit) return { jobs, isCut: false };
    if (bytesOfJobs(jobs) >= maxPageBytes) return { jobs, isCut: true };
    take = nextSlice(jobs, limit + 1 - jobs.length);
  }
}
