// Turns the part under `schedule:` of a job spec file, with flags over it, into input of
// `createSchedule`.
import { closest } from '../../closest.ts';
import type { Issue } from '../../errors.ts';
import { usage } from '../failure.ts';
import { toSeconds } from '../flags.ts';
import { isObject, type Json } from '../spec-file.ts';

export type ScheduleFlags = { cron?: string; tz?: string; onOverlap?: string; startingDeadline?: string };

/** Fields of the input beside the template; absent when neither file nor flags set them. */
export type ScheduleInput = {
  cron?: unknown;
  timezone?: unknown;
  name?: unknown;
  onOverlap?: unknown;
  startingDeadlineSeconds?: unknown;
};

const overlaps = ['ALLOW', 'FORBID', 'REPLACE'];
const kinds: Record<string, { field: keyof ScheduleInput; type: 'string' | 'number' }> = {
  cron: { field: 'cron', type: 'string' },
  timezone: { field: 'timezone', type: 'string' },
  name: { field: 'name', type: 'string' },
  on_overlap: { field: 'onOverlap', type: 'string' },
  starting_deadline_seconds: { field: 'startingDeadlineSeconds', type: 'number' },
};

/**
 * Removes `schedule` from the content of a spec file; the rest is the template. `schedule` is null
 * when neither file nor flags have one. Problems are returned, so that they are printed together
 * with those of the template.
 */
export function splitSchedule(
  content: Json,
  flags: ScheduleFlags,
): { template: Json; schedule: ScheduleInput | null; issues: Issue[] } {
  const { schedule: inFile, ...template } = content;
  const ofFlags = flagInput(flags);
  if ((inFile === undefined || inFile === null) && Object.keys(ofFlags).length === 0) {
    return { template, schedule: null, issues: [] };
  }
  const { input, issues } = readSection(inFile ?? {});
  const schedule = { ...input, ...ofFlags };
  return { template, schedule, issues };
}

/** Returns the input from flags; throws for values that no schedule can have. */
export function flagInput({ cron, tz, onOverlap, startingDeadline }: ScheduleFlags): ScheduleInput {
  return {
    ...(cron === undefined ? {} : { cron }),
    ...(tz === undefined ? {} : { timezone: tz }),
    ...(onOverlap === undefined ? {} : { onOverlap: toOverlap(onOverlap) }),
    ...(startingDeadline === undefined
      ? {}
      : { startingDeadlineSeconds: toSeconds('--starting-deadline', startingDeadline) }),
  };
}

/** Returns the issue of a schedule without a cron expression; an empty list when it has one. */
export function missingCron({ cron }: ScheduleInput): Issue[] {
  if (cron !== undefined) return [];
  const hint = 'Give it in the file or with --cron, e.g. "0 2 * * 1-5".';
  const message = 'schedule.cron is required.';
  return [{ code: 'REQUIRED', path: ['schedule', 'cron'], specPath: 'schedule.cron', message, hint }];
}

function toOverlap(text: string): string {
  if (overlaps.includes(text.toUpperCase())) return text.toUpperCase();
  throw usage(`--on-overlap takes allow, forbid or replace, got "${text}".`);
}

function readSection(section: unknown): { input: ScheduleInput; issues: Issue[] } {
  const issues: Issue[] = [];
  const report = (code: Issue['code'], key: string | null, rest: string, hint?: string) => {
    const specPath = key === null ? 'schedule' : `schedule.${key}`;
    issues.push({ code, path: specPath.split('.'), specPath, message: `${specPath} ${rest}`, hint });
  };
  const keys = Object.keys(kinds);
  if (!isObject(section)) {
    report('WRONG_TYPE', null, 'must be an object.', `For example schedule: { cron: "0 * * * *" }.`);
    return { input: { cron: '' }, issues };
  }
  const input: ScheduleInput = {};
  for (const [key, value] of Object.entries(section)) {
    const kind = kinds[key];
    if (!kind) {
      const near = closest(key, keys);
      report('UNKNOWN_FIELD', key, 'is no field.', near ? `Did you mean "${near}"?` : `Known: ${keys.join(', ')}.`);
    } else if (value === null) continue;
    else if (typeof value !== kind.type) report('WRONG_TYPE', key, `must be a ${kind.type}.`);
    else if (key === 'on_overlap' && !overlaps.includes(String(value).toUpperCase())) {
      report('NOT_ALLOWED', key, `must be one of ${overlaps.join(', ')}.`);
    } else input[kind.field] = key === 'on_overlap' ? String(value).toUpperCase() : value;
    // its issue was added above
    if (kind && value !== null && typeof value !== kind.type) input[kind.field] ??= value;
  }
  return { input, issues };
}
