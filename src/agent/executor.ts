// PORT: how a command is run. Processes of this machine today; containers would be another adapter.

export type CommandOptions = {
  command: readonly string[];
  /** The whole environment: nothing is inherited beyond it. */
  env: Readonly<Record<string, string>>;
  /** Working directory. */
  cwd: string;
  onOutput(stream: 'STDOUT' | 'STDERR', chunk: Buffer): void;
};

export type CommandEnd = {
  exitCode: number | null;
  signal: string | null;
  /** The kernel ended a process for want of memory meanwhile: of this command, or of one that shares its limit. */
  oomKilled?: boolean;
};

export type RunningCommand = {
  /** Resolves when the command itself ended and its output was read. */
  readonly ended: Promise<CommandEnd>;
  /** Sends a signal to the command and everything it started. */
  signal(name: 'SIGTERM' | 'SIGKILL'): void;
  /** Whether no process of the job is left, also none that went its own way. */
  isGone(): Promise<boolean>;
};

export type Guard = {
  /** All ends at this time, by `performance.now()`, unless a later one is said before. */
  endAt(time: number): void;
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
  endStrays(jobId: string, attempt: string, onLeft?: (pids: number[]) => void): Promise<number | null>;
  /**
   * Has the attempt watched from outside of this process: its processes are killed at the time that the guard is told, and
   * when this process is gone. Start it before the command. Not where there is no /proc.
   */
  guard(jobId: string, attempt: string): Promise<Guard>;
};
