// Computes due times a second time by other means: for each minute, Intl gives the wall clock.
// Supports only expressions of the tests: numbers, lists, ranges, `*` and `*/n`.

/** Returns the due times in [from, to) as ISO texts. */
export function dueByOracle(cron: string, timezone: string, from: Date, to: Date): string[] {
  const [minutes = '', hours = '', days = '', months = '', weekdays = ''] = cron.split(' ');
  const goesWithTime = /[*/]/.test(minutes + hours);
  const matches = (wall: Date) =>
    includes(minutes, wall.getUTCMinutes()) &&
    includes(hours, wall.getUTCHours()) &&
    includes(months, wall.getUTCMonth() + 1) &&
    (days !== '*' && weekdays !== '*'
      ? includes(days, wall.getUTCDate()) || includes(weekdays, wall.getUTCDay())
      : includes(days, wall.getUTCDate()) && includes(weekdays, wall.getUTCDay()));
  const due: string[] = [];
  const seen = new Set<number>();
  const minute = 60_000;
  const wallOf = wallClock(timezone);
  // Begins a day earlier, so that the first pass of a repeated hour has been seen.
  let before = wallOf(from.getTime() - 1441 * minute);
  for (let time = from.getTime() - 1440 * minute; time < to.getTime(); time += minute) {
    const wall = wallOf(time);
    let isDue = matches(new Date(wall));
    if (!goesWithTime) {
      if (seen.has(wall)) isDue = false;
      for (let missing = before + minute; missing < wall; missing += minute) isDue ||= matches(new Date(missing));
      seen.add(wall);
    }
    if (isDue && time >= from.getTime()) due.push(new Date(time).toISOString());
    before = wall;
  }
  return due;
}

function includes(field: string, value: number): boolean {
  return field.split(',').some((part) => {
    const [range = '', step = '1'] = part.split('/');
    const [low = 0, high = low] = range === '*' ? [0, 99] : range.split('-').map(Number);
    const first = range === '*' ? 0 : low;
    return value >= first && value <= high && (value - first) % Number(step) === 0;
  });
}

/**
 * Makes a function from an instant to the wall clock of the zone, read as if it were UTC; both in
 * milliseconds.
 */
function wallClock(timeZone: string): (instant: number) => number {
  const parts = ['year', 'month', 'day', 'hour', 'minute'] as const;
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    hourCycle: 'h23',
    ...Object.fromEntries(parts.map((part) => [part, 'numeric'])),
  });
  return (instant) => {
    const shown = new Map(format.formatToParts(instant).map(({ type, value }) => [type, Number(value)]));
    const [year = 0, month = 0, day = 0, hour = 0, minute = 0] = parts.map((part) => shown.get(part) ?? 0);
    return Date.UTC(year, month - 1, day, hour, minute);
  };
}
