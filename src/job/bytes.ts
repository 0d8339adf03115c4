// Memory that jobs take. Most are small, but a spec may fill a request body, and a row holds it
// about four times. Lists are read in slices, so that one request never loads a hundred large jobs.
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import type { Job } from './job.ts';
import { jobPosition, type JobsRequest, listJobs } from './list.ts';

/**
 * Copies of the spec in a row: as sent, effective, resolved with paths and sources, and the notes,
 * which each of them repeats.
 */
const copiesOfSpec = 4;
const rowBytes = 1_000;
/** Number of jobs in the first slice. Their size is the estimate for the jobs after them. */
export const firstSlice = 8;
/** A page of jobs ends once its jobs take this many bytes. */
export const maxPageBytes = 4 * 1024 * 1024;

/** Estimates the memory of a job, in bytes. */
export function bytesOfJob({ spec }: Job): number {
  return copiesOfSpec * JSON.stringify(spec).length + rowBytes;
}

export function bytesOfJobs(jobs: readonly Job[]): number {
  return jobs.reduce((sum, job) => sum + bytesOfJob(job), 0);
}

/**
 * Returns the number of jobs in the next slice, from 1 to `maxCount`: as many as fit into the page
 * if they are as large as the mean of the jobs so far.
 */
export function nextSlice(jobs: readonly Job[], maxCount: number): number {
  const bytes = bytesOfJobs(jobs);
  const fitting = Math.floor((maxPageBytes - bytes) / (bytes / Math.max(1, jobs.length)));
  return Math.max(1, Math.min(maxCount, fitting));
}

/**
 * Like `listJobs`, in slices. `isCut` is true when the page ended before `limit` because its jobs
 * take `maxPageBytes`.
 */
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
    // A job whose place in the order changed between two slices may come again.
    const readIds = new Set(jobs.map(({ id }) => id));
    const fresh = slice.filter(({ id }) => !readIds.has(id));
    jobs.splice(backward ? 0 : jobs.length, 0, ...fresh);
    if (slice.length < take || jobs.length > limit) return { jobs, isCut: false };
    if (bytesOfJobs(jobs) >= maxPageBytes) return { jobs, isCut: true };
    take = nextSlice(jobs, limit + 1 - jobs.length);
  }
}
