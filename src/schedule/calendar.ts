// Due times of cron expressions in a time zone. Pure: no function reads a clock. The library croner
// computes the calendar.
import { Cron } from 'croner';
import { closest } from '../closest.ts';
import { type Issue, quote } from '../errors.ts';
import cronstrue from 'cronstrue';

/**
 * Due times of an expression in a time zone, each a whole minute. When the clocks change:
 *
 * - An expression that names its minutes and hours (`30 2 * * *`, `0 2,14 * * *`, `0 1-3 * * *`) is
 *   due once for each time of day that it names. Times that are left out when clocks go forward are
 *   due together, once, at the first moment after the gap. A time that comes twice when clocks go
 *   back is due the first time only.
 * - An expression with `*` or a step in its minute or hour (`0 * * * *`, `* 2 * * *`) follows the
 *   time that passes: left-out times are not due, and times that come twice are due twice.
 *   `0 * * * *` is due every hour.
 */
export type Calendar = {
  /** Returns the first due time after an instant; null when none will come. */
  after(instant: Date): Date | null;
  /** Returns the last due time before an instant; null when there was none. */
  before(instant: Date): Date | null;
};

export type CalendarInput = { cron: string; timezone: string };

const shortcuts = ['@hourly', '@daily', '@weekly', '@monthly'];
const fields = ['minute', 'hour', 'day of the month', 'month', 'day of the week'];
const maxCron = 100;

/** Returns up to `count` due times after an instant, oldest first. */
export function dueTimes(calendar: Calendar, after: Date, count: number): Date[] {
  const times: Date[] = [];
  for (let next = calendar.after(after); next && times.length < count; next = calendar.after(next)) times.push(next);
  return times;
}

/** Makes the calendar of an expression without issues; throws croner's error for any other. */
export function openCalendar({ cron, timezone }: CalendarInput): Calendar {
  const cronJob = new Cron(cron, { timezone, mode: '5-part', fixedTimeRule: 'no-wildcard', paused: true });
  return {
    after: (instant) => cronJob.nextRun(instant),
    before: (instant) => cronJob.previousRuns(1, instant)[0] ?? null,
  };
}

/** Returns an expression in words, e.g. `At 02:00, Monday through Friday`. */
export function describeCron(cron: string): string {
  return cronstrue.toString(cron, { use24HourTimeFormat: true });
}

/**
 * Returns the problems of an expression and a time zone. `at` is their path in the request. An
 * expression without a due time after `now` is one of them, e.g. 30 February.
 */
export function calendarIssues({ cron, timezone }: CalendarInput, at: readonly string[], now: Date): Issue[] {
  const issues = [...cronIssues(cron, [...at, 'cron']), ...timezoneIssues(timezone, [...at, 'timezone'])];
  if (issues.length > 0 || openCalendar({ cron, timezone }).after(now)) return issues;
  const message = `cron ${quote(cron)} is never due: no day is on that date.`;
  return [
    {
      code: 'MALFORMED',
      path: [...at, 'cron'],
      specPath: 'schedule.cron',
      message,
      hint: 'February has 29 days at most, April 30.',
    },
  ];
}

function cronIssues(cron: string, path: string[]): Issue[] {
  const malformed = (why: string, hint: string): Issue[] => [
    { code: 'MALFORMED', path, specPath: 'schedule.cron', message: `cron ${quote(cron)} ${why}`, hint },
  ];
  const example = 'Give minute, hour, day of the month, month and day of the week, e.g. "0 2 * * 1-5".';
  const text = cron.trim();
  if (text.startsWith('@')) {
    if (shortcuts.includes(text)) return [];
    const near = closest(text, shortcuts);
    return malformed('is not known.', near ? `Did you mean "${near}"?` : `Known: ${shortcuts.join(', ')}.`);
  }
  const parts = text.split(/\s+/);
  if (text === '' || cron.length > maxCron) return malformed('is no cron expression.', example);
  if (parts.length === 6) return malformed('has six fields; five are known, without seconds.', example);
  if (parts.length !== 5) return malformed(`has ${parts.length} fields; it must have five.`, example);
  const odd = parts.findIndex((part) => !/^[0-9A-Za-z*,/#-]+$/.test(part));
  if (odd >= 0) return malformed(`has a character in its ${fields[odd]} that means nothing there.`, example);
  try {
    openCalendar({ cron: text, timezone: 'UTC' });
    describeCron(text);
    return [];
  } catch (error) {
    return malformed(`cannot be read: ${reasonOf(error)}.`, example);
  }
}

/** Returns croner's message without its prefix; cronstrue throws a string. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/^(CronPattern|Error): /, '').replace(/\.$/, '');
}

function timezoneIssues(timezone: string, path: string[]): Issue[] {
  // Intl also takes offsets such as +02:00. They do not follow clock changes, so they are refused.
  const isNamed = /^[A-Za-z][A-Za-z0-9_+/-]*$/.test(timezone) && timezone.length <= 100;
  if (isNamed && isKnownZone(timezone)) return [];
  const near = closest(timezone, Intl.supportedValuesOf('timeZone'));
  const hint = near ? `Did you mean "${near}"?` : 'Use a name such as UTC or Europe/Berlin.';
  return [
    {
      code: 'MALFORMED',
      path,
      specPath: 'schedule.timezone',
      message: `timezone ${quote(timezone)} is no IANA time zone.`,
      hint,
    },
  ];
}

function isKnownZone(timezone: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: timezone });
    return true;
  } catch {
    return false;
  }
}
