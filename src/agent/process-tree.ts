// The processes of an attempt as /proc shows them, where no control group holds them together: its sessions, its
// descendants, and those whose environment names the job and the attempt. Only what was seen while its parent
// lived is known as a descendant, so a command that runs is looked at again and again.
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { CpuTime, type ProcessTime } from './cpu-time.ts';

/** `life` is its pid with its start: a pid alone is given out again. */
export type FoundProcess = ProcessTime & { group: number; session: number };

/**
 * Pauses between looks. A look reads a file of each process of the machine: it takes 1/50 of a core at most, but comes
 * once a second at least.
 */
const [shortestPauseMs, longPauseMs, longestPauseMs, longestShare] = [10, 250, 1_000, 1 / 50];

export class ProcessTree {
  readonly #marks: string[];
  /** What was seen to be the attempt's. */
  #lives: ReadonlySet<string>;
  /** Sessions that its command or a descendant began. */
  #sessions: ReadonlySet<number>;
  readonly #cpuTime = new CpuTime();
  #timer: NodeJS.Timeout | undefined;

  /** `life` is that of the command's first process, which leads a session. */
  constructor({ jobId, attempt, life }: { jobId: string; attempt: string; life?: string | null | undefined }) {
    this.#marks = [`ASTRAML_JOB_ID=${jobId}`, `ASTRAML_ATTEMPT=${attempt}`];
    this.#lives = new Set(life ? [life] : []);
    // Of an earlier life only while the leader is there: the number of a session may be given out again.
    const isAlive = life && lifeOf(Number(life.split(' ')[0])) === life;
    this.#sessions = new Set(isAlive ? [Number(life.split(' ')[0])] : []);
  }

  /** Looks again and again until `stop`. */
  watch(pauseMs = shortestPauseMs): void {
    const before = process.cpuUsage();
    this.#look();
    const { user, system } = process.cpuUsage(before);
    const leastMs = Math.min((user + system) / 1000 / longestShare, longestPauseMs);
    const nextMs = Math.min(2 * pauseMs, longPauseMs);
    this.#timer = setTimeout(() => this.watch(nextMs), Math.max(pauseMs, leastMs)).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  /** CPU time of its processes so far, also of those that ended, and the pids of the living; null where there is no /proc. */
  measure(): { cpuSeconds: number; pids: number[] } | null {
    if (!this.#look()) return null;
    return { cpuSeconds: this.#cpuTime.seconds, pids: [...this.#lives].map((life) => Number(life.split(' ')[0])) };
  }

  /** Its living processes; null where there is no /proc. */
  async find(): Promise<FoundProcess[] | null> {
    const stats = this.#look();
    if (!stats) return null;
    const known = [...this.#lives];
    const marked = await Promise.all(
      stats
        .filter(({ life }) => !this.#lives.has(life))
        .map(async ({ pid, life }) => {
          const variables = (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0');
          return this.#marks.every((mark) => variables.includes(mark)) ? life : null;
        }),
    );
    const all = withDescendants(stats, new Set([...known, ...marked.filter((life) => life !== null)]));
    this.#lives = new Set(all.map(({ life }) => life));
    return all;
  }

  #look(): FoundProcess[] | null {
    const stats = listStats();
    if (!stats) return null;
    const known = stats.filter(({ life, session }) => this.#lives.has(life) || this.#sessions.has(session));
    const all = withDescendants(stats, new Set(known.map(({ life }) => life)));
    this.#lives = new Set(all.map(({ life }) => life));
    // A session is the attempt's when its leader was, or was begun by one that was: nobody can join another's.
    this.#sessions = new Set(
      all.flatMap(({ session, pid }) => (session === pid || this.#sessions.has(session) ? [session] : [])),
    );
    this.#cpuTime.see(all);
    return stats;
  }
}

/** The processes with these lives, and all that descend from them. */
function withDescendants(stats: readonly FoundProcess[], lives: ReadonlySet<string>): FoundProcess[] {
  const children = Map.groupBy(stats, ({ parent }) => parent);
  const found = new Set(stats.filter(({ life }) => lives.has(life)));
  for (const { pid } of found) for (const child of children.get(pid) ?? []) found.add(child); // grows while it is read
  return [...found];
}

/** Every process of the machine that has not ended, but this one. */
function listStats(): FoundProcess[] | null {
  const names = readOr(() => readdirSync('/proc'));
  return names && names.filter((name) => /^\d+$/.test(name)).flatMap((name) => statOf(Number(name)) ?? []);
}

function statOf(pid: number): FoundProcess | null {
  const text = readOr(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
  if (!text || pid === process.pid) return null;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state = '', parent, group, session] = fields;
  if (state === 'Z' || state === 'X') return null;
  const life = `${pid} ${fields[19]}`;
  const [ticks, childTicks] = [Number(fields[11]) + Number(fields[12]), Number(fields[13]) + Number(fields[14])];
  return { pid, life, parent: Number(parent), group: Number(group), session: Number(session), ticks, childTicks };
}

/** Null for a process that has ended, and where there is no /proc. */
export function lifeOf(pid: number): string | null {
  return statOf(pid)?.life ?? null;
}

function readOr<Value>(read: () => Value): Value | null {
  try {
    return read();
  } catch {
    return null; // it ended meanwhile, or there is no /proc
  }
}
