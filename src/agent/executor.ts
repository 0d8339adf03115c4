// PORT: how a command is run. Processes of this machine today; containers would be another adapter.
import type { User } from './user.ts';

/** An attempt by all its names. */
export type AttemptName = {
  attemptId: string;
  jobId: string;
  /** Its number, as text. */
  attempt: string;
  /** The process that its command began with, once it runs: a pid with its start. */
  life?: string | null | undefined;
};

export type CommandOptions = {
  attemptId: string;
  command: readonly string[];
  /** The whole environment: nothing is inherited beyond it. It names the job and the attempt. */
  env: Readonly<Record<string, string>>;
  /** Working directory. */
  cwd: string;
  /** Under whom it runs; the user of this process by default. */
  user?: User | undefined;
  onOutput(stream: 'STDOUT' | 'STDERR', chunk: Buffer): void;
};

export type CommandEnd = {
  exitCode: number | null;
  signal: string | null;
  /** The kernel ended a process for want of memory meanwhile: of this command, or of one that shares its limit. */
  oomKilled?: boolean;
};

/** What a command and everything that it started use; null for what this machine does not tell. */
export type Usage = {
  /** CPU time since its start, also of processes that ended. */
  cpuSeconds: number | null;
  memoryBytes: number | null;
};

export type RunningCommand = {
  /** Resolves when the command itself ended and its output was read; rejects when it could not begin. */
  readonly ended: Promise<CommandEnd>;
  /** Its first process, see AttemptName; null where nobody can say. */
  readonly life: string | null;
  /** Sends a signal to the command and everything it started. */
  signal(name: 'SIGTERM' | 'SIGKILL'): void;
  /** What it uses now. Reads files one after the other; never rejects. */
  usage(this: void): Promise<Usage>;
  /** Processes of the job that are left, for people. */
  listLeft(): Promise<{ pid: number; command: string }[]>;
  /** Whether no process of the job is left, also none that went its own way; then its control group goes too. */
  isGone(): Promise<boolean>;
};

export type Guard = {
  /** All ends at this time, by `performance.now()`, unless a later one is said before. */
  endAt(time: number): void;
  /** The command runs: its first process, see AttemptName. */
  know(life: string | null): void;
  /** The attempt is over. */
  release(): void;
};

export type Executor = {
  /** Starts a command; rejects with a sentence for people when it cannot be started. */
  start(options: CommandOptions): Promise<RunningCommand>;
  /**
   * Kills all processes of an attempt that an earlier life of the runner left behind, and resolves when they are gone,
   * however long that takes: how many there were; null where nobody can say. `onLeft` is called once, with pids, when
   * some are still there after 5 s.
   */
  endStrays(name: AttemptName, onLeft?: (pids: number[]) => void): Promise<number | null>;
  /**
   * Has the attempt watched from outside of this process: its processes are killed at the time that the guard is told, and
   * when this process is gone. Start it before the command. Not where there is no /proc.
   */
  guard(name: AttemptName): Promise<Guard>;
};
