// The outcome of a job for people: its state, duration, reason and hint, and where to look further.
import type { Cli } from '../cli.ts';
import { stateGlyph } from '../output.ts';
import { cleanText, formatDuration } from '../text.ts';
import type { JobLine } from './fields.ts';

/** Returns the name of a job for people, e.g. `p-demo/42`. */
export function jobName(job: Pick<JobLine, 'number' | 'project'>): string {
  return `${job.project.id}/${job.number}`;
}

/**
 * Returns the shortest name that finds the job in the next command: `42` when its project is the
 * default one.
 */
export function shortName(cli: Cli, job: Pick<JobLine, 'number' | 'project'>): string {
  return cli.lastingProject === job.project.id ? String(job.number) : jobName(job);
}

/** Returns a job and its state as one line. */
export function stateLine({ out }: Cli, job: JobLine): string {
  return out.tty ? `${stateGlyph(out, job.state)} ${jobName(job)} ${job.state}` : `${jobName(job)}\t${job.state}`;
}

/** Returns the lines about the outcome of a job. */
export function outcomeLines(cli: Cli, job: JobLine): string[] {
  const { state, stateReason: reason, finishedAt } = job;
  const from = job.startedAt ?? job.createdAt;
  const after = finishedAt ? ` after ${formatDuration(Date.parse(finishedAt) - Date.parse(from))}` : '';
  const attempt = job.currentAttempt ? ` (attempt ${job.currentAttempt.number} of ${job.attempts.length})` : '';
  const bad = state === 'FAILED' || state === 'TIMED_OUT';
  const head = `${stateGlyph(cli.out, state)} ${jobName(job)} ${cleanText(job.name)} ${state}${after}${bad ? attempt : ''}`;
  if (!bad) return [head];
  return [
    head,
    ...(reason ? [`  ${cleanText(reason.message)}`] : []),
    ...(reason?.hint ? [`  ${cli.out.paint('dim', 'hint')}  ${cleanText(reason.hint)}`] : []),
    `  ${cli.out.paint('dim', 'log')}   astraml logs ${shortName(cli, job)} -n 50`,
  ];
}
