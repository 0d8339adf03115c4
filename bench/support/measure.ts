// Measurements and their output: CPU seconds of processes (from /proc, Linux only), quantiles, a
// plain table.
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';

const ticksPerSecond = 100; // USER_HZ, the same on every Linux on which Node runs

/** Returns the CPU seconds of a process and its children, running or ended; null without /proc. */
export function cpuSeconds(pid: number | undefined): number | null {
  if (pid === undefined) return null;
  try {
    const own = ticksOf(pid, 4);
    const children = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((name) => (parentOf(name) === pid ? ticksOf(Number(name), 2) : []));
    return (own + children.reduce((sum, ticks) => sum + ticks, 0)) / ticksPerSecond;
  } catch {
    return null;
  }
}

/** Returns the CPU seconds of all threads of a process, to the nanosecond; null without /proc. */
export function ownCpuSeconds(pid: number): number | null {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    const nanoseconds = threads.map((thread) =>
      Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]),
    );
    return nanoseconds.reduce((sum, value) => sum + value, 0) / 1e9;
  } catch {
    return null;
  }
}

/** Returns the resident memory of a process in bytes; null without /proc. */
export function residentBytes(pid: number): number | null {
  try {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return kib === undefined ? null : Number(kib) * 1024;
  } catch {
    return null;
  }
}

function fieldsOf(pid: number | string): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}

/** Returns the sum of the first `count` of utime, stime, cutime and cstime, in ticks. */
function ticksOf(pid: number, count: 2 | 4): number {
  return fieldsOf(pid)
    .slice(11, 11 + count)
    .reduce((sum, ticks) => sum + Number(ticks), 0);
}

function parentOf(pid: string): number | undefined {
  try {
    return Number(fieldsOf(pid)[1]);
  } catch {
    return undefined; // the process ended meanwhile
  }
}

/** Returns the value below which this share of the values lies. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** Returns a number with three significant digits and separated thousands. */
export function figure(value: number | null, unit = ''): string {
  if (value === null || Number.isNaN(value)) return '–';
  const digits = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  const rounded = Number(value.toPrecision(3));
  return rounded.toLocaleString('en-US', { maximumFractionDigits: Math.min(digits, 6) }) + unit;
}

/** Prints rows under their heads, numbers aligned to the right. */
export function printTable(heads: readonly string[], rows: readonly (readonly string[])[]): void {
  const all = [heads, ...rows];
  const widths = heads.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)));
  for (const row of all) console.log(line(row).join('  '));
}

/** Prints the machine and its load, on which the figures depend, in one line. */
export function printMachine(): void {
  const load = loadavg()[0] ?? 0;
  const busy = load > availableParallelism() / 2 ? '; other work runs beside this: only ratios mean something' : '';
  console.log(
    `${cpus()[0]?.model.trim() ?? 'unknown CPU'}, ${availableParallelism()} cores, load ${load.toFixed(1)}${busy}; node ${process.version}\n`,
  );
}
