// PORT: runs commands. Today as processes of this machine; containers would be another adapter.

/** The names by which an attempt and its processes are found. */
export type AttemptName = {
  attemptId: string;
  jobId: string;
  /** Number of the attempt, as text. */
  attempt: string;
  /**
   * The first process of the command, once it runs: its pid and start time, since a pid alone is
   * used again.
   */
  life?: string | null | undefined;
};

/** The user of a command, where it is not the runner's own. Its uid and gid are the same number. */
export type User = {
  uid: number;
  /** Groups beside its own gid, e.g. those of the GPU devices. */
  groups: readonly number[];
  /** Home folder, which only this user can enter. */
  home: string;
};

export type CommandOptions = {
  attemptId: string;
  command: readonly string[];
  /** The whole environment, since nothing is inherited. It names the job and the attempt. */
  env: Readonly<Record<string, string>>;
  /** Working directory. */
  cwd: string;
  /** User of the command; that of this process by default. */
  user?: User | undefined;
  onOutput(stream: 'STDOUT' | 'STDERR', chunk: Buffer): void;
};

export type CommandEnd = {
  exitCode: number | null;
  signal: string | null;
  /**
   * The kernel killed a process for want of memory while the command ran: one of this command, or
   * one that shares its limit.
   */
  oomKilled?: boolean;
};

/** Resources that a command and all its descendants use; null where this machine does not tell. */
export type Usage = {
  /** CPU seconds since the start, including processes that have ended. */
  cpuSeconds: number | null;
  memoryBytes: number | null;
};

export type RunningCommand = {
  /**
   * Resolves when the command has ended and its output was read. Rejects when it could not begin.
   */
  readonly ended: Promise<CommandEnd>;
  /** The first process of the command, see `AttemptName`; null where this machine does not tell. */
  readonly life: string | null;
  /** Sends a signal to the command and everything it started. */
  signal(name: 'SIGTERM' | 'SIGKILL'): void;
  /** Reads what the command uses now, file by file. Never rejects. */
  usage(this: void): Promise<Usage>;
  /** Lists the processes of the job that still run, to show them to users. */
  listLeft(): Promise<{ pid: number; command: string }[]>;
  /**
   * Whether no process of the job runs any more, including those that left its session. Then it
   * removes the control group.
   */
  isGone(): Promise<boolean>;
};

export type Guard = {
  /**
   * Sets the time, by `performance.now()`, at which the guard kills all processes. A later call
   * replaces it.
   */
  endAt(time: number): void;
  /** Tells the guard the first process of the command, see `AttemptName`. */
  know(life: string | null): void;
  /** Ends the guard after the attempt. */
  release(): void;
};

export type Executor = {
  /** Starts a command. Rejects, with a sentence for users, when it cannot be started. */
  start(options: CommandOptions): Promise<RunningCommand>;
  /**
   * Kills all processes of an attempt that an earlier process of the runner left behind, and
   * resolves when they are gone, however long that takes: to their number, or to null where this
   * machine does not tell. `onLeft` is called once, with pids, when some are still there after 5 s.
   */
  endStrays(name: AttemptName, onLeft?: (pids: number[]) => void): Promise<number | null>;
  /**
   * Starts a guard process for the attempt: it kills its processes at the time that it is told, and
   * when this process is gone. Start it before the command. It needs /proc.
   */
  guard(name: AttemptName): Promise<Guard>;
};
