// Finds the processes of an attempt in /proc, where no control group holds them together: those of
// its sessions, descendants of its processes, and processes whose environment names the job and the
// attempt. A descendant is recognised only if it was seen while its parent lived, so a running
// command is scanned again and again.
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { CpuTime, type ProcessTime } from './cpu-time.ts';

/** `life` is the pid with the start time of the process: a pid alone is used again. */
export type FoundProcess = ProcessTime & { group: number; session: number };

/**
 * Pauses between scans. A scan reads a file of each process of the machine. Scans take at most 1/50
 * of a core, but happen at least once a second.
 */
const [shortestPauseMs, longPauseMs, longestPauseMs, longestShare] = [10, 250, 1_000, 1 / 50];

export class ProcessTree {
  readonly #marks: string[];
  /** Lives of the processes that were recognised as the attempt's. */
  #lives: ReadonlySet<string>;
  /** Numbers of the sessions that the command or a descendant began. */
  #sessions: ReadonlySet<number>;
  readonly #cpuTime = new CpuTime();
  #timer: NodeJS.Timeout | undefined;

  /** `life` is that of the command's first process, which leads a session. */
  constructor({ jobId, attempt, life }: { jobId: string; attempt: string; life?: string | null | undefined }) {
    this.#marks = [`ASTRAML_JOB_ID=${jobId}`, `ASTRAML_ATTEMPT=${attempt}`];
    this.#lives = new Set(life ? [life] : []);
    // The session counts only while its leader lives: afterwards its number may be used again.
    const isAlive = life && lifeOf(Number(life.split(' ')[0])) === life;
    this.#sessions = new Set(isAlive ? [Number(life.split(' ')[0])] : []);
  }

  /** Scans again and again until `stop`. */
  watch(pauseMs = shortestPauseMs): void {
    const before = process.cpuUsage();
    this.#scan();
    const { user, system } = process.cpuUsage(before);
    const leastMs = Math.min((user + system) / 1000 / longestShare, longestPauseMs);
    const nextMs = Math.min(2 * pauseMs, longPauseMs);
    this.#timer = setTimeout(() => this.watch(nextMs), Math.max(pauseMs, leastMs)).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  /**
   * Returns the CPU time of the attempt so far, including processes that have ended, and the pids
   * of the living; null without /proc.
   */
  measure(): { cpuSeconds: number; pids: number[] } | null {
    if (!this.#scan()) return null;
    return { cpuSeconds: this.#cpuTime.seconds, pids: [...this.#lives].map((life) => Number(life.split(' ')[0])) };
  }

  /** Finds the living processes of the attempt; null without /proc. */
  async find(): Promise<FoundProcess[] | null> {
    const stats = this.#scan();
    if (!stats) return null;
    const lives = [...this.#lives];
    const marked = await Promise.all(
      stats
        .filter(({ life }) => !this.#lives.has(life))
        .map(async ({ pid, life }) => {
          const variables = (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0');
          return this.#marks.every((mark) => variables.includes(mark)) ? life : null;
        }),
    );
    const all = withDescendants(stats, new Set([...lives, ...marked.filter((life) => life !== null)]));
    this.#lives = new Set(all.map(({ life }) => life));
    return all;
  }

  #scan(): FoundProcess[] | null {
    const stats = listStats();
    if (!stats) return null;
    const members = stats.filter(({ life, session }) => this.#lives.has(life) || this.#sessions.has(session));
    const all = withDescendants(stats, new Set(members.map(({ life }) => life)));
    this.#lives = new Set(all.map(({ life }) => life));
    // A session belongs to the attempt when its leader does. Its other members do too, since no
    // process can join an existing session.
    this.#sessions = new Set(
      all.flatMap(({ session, pid }) => (session === pid || this.#sessions.has(session) ? [session] : [])),
    );
    this.#cpuTime.see(all);
    return stats;
  }
}

/** Returns the processes with these lives, and all their descendants. */
function withDescendants(stats: readonly FoundProcess[], lives: ReadonlySet<string>): FoundProcess[] {
  const children = Map.groupBy(stats, ({ parent }) => parent);
  const members = new Set(stats.filter(({ life }) => lives.has(life)));
  // the Set grows during the loop
  for (const { pid } of members) for (const child of children.get(pid) ?? []) members.add(child);
  return [...members];
}

/** Lists all living processes of the machine except this one; null without /proc. */
function listStats(): FoundProcess[] | null {
  const names = readOr(() => readdirSync('/proc'));
  return names && names.filter((name) => /^\d+$/.test(name)).flatMap((name) => statOf(Number(name)) ?? []);
}

function statOf(pid: number): FoundProcess | null {
  // UTF-8 is the encoding that Node reads in one call, twice as fast; a name that is none is skipped.
  const text = readOr(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  if (!text || pid === process.pid) return null;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state = '', parent, group, session] = fields;
  if (state === 'Z' || state === 'X') return null;
  const life = `${pid} ${fields[19]}`;
  const [ticks, childTicks] = [Number(fields[11]) + Number(fields[12]), Number(fields[13]) + Number(fields[14])];
  return { pid, life, parent: Number(parent), group: Number(group), session: Number(session), ticks, childTicks };
}

/** Returns the life (pid and start time) of a process; null when it has ended, or without /proc. */
export function lifeOf(pid: number): string | null {
  return statOf(pid)?.life ?? null;
}

function readOr<Value>(read: () => Value): Value | null {
  try {
    return read();
  } catch {
    return null; // the process has ended, or there is no /proc
  }
}
