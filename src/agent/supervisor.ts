// Runs one attempt from its assignment to its proven end: workspace, command, records of its
// output, records to the gateway. The order of an end: output read, processes gone, `finished` as
// the last record, everything acknowledged.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bus } from '../bus/bus.ts';
import type { Acknowledgement, Assignment, Directive } from '../protocol/control.ts';
import type { RunnerRecord } from '../protocol/record.ts';
import type { Outcome, RunningAttempt, WhenCut } from './attempt.ts';
import { environmentOf } from './environment.ts';
import type { CommandEnd, Executor, RunningCommand, User } from './executor.ts';
import { LeaseWatch } from './lease-watch.ts';
import { CommandOutput } from './output.ts';
import { Redactor, secretValues } from './redact.ts';
import { describeCommand, describeLeft, notStarted } from './sentences.ts';
import { RecordSender } from './record-sender.ts';
import { Spool } from './spool.ts';
import { SpoolWatch } from './spool-watch.ts';
import { sampleUsage } from './usage.ts';
import { Workspace } from './workspace.ts';

export type SupervisorOptions = {
  assignment: Assignment;
  executor: Executor;
  /** Work folder of the runner, which contains those of the attempts. */
  workDir: string;
  gatewayUrl: string;
  /** Where the attempt runs, for its log, e.g. `runner gpu-7, GPU 0 (NVIDIA H100)`. */
  place: string;
  virtualGpus: boolean;
  append: Bus['append'];
  renew(attemptId: string, leaseToken: string): Promise<Acknowledgement>;
  heartbeatMs: number;
  leaseMs: number;
  /** Reaction when no gateway can be reached. A job with `on_cut: stop` overrides it. */
  whenCut: WhenCut;
  graceMs: number;
  /** Bytes of records on disk; beyond it the oldest lines are dropped, see `spool.ts`. */
  spoolBytes?: number;
  host: Readonly<Record<string, string | undefined>>;
  /** User of the command; that of this process by default. */
  user?: User | undefined;
  /** Reason why the command must not be started. */
  refusal?: string | undefined;
  /** Failures that the attempt survives. */
  onTrouble?: (error: unknown) => void;
};

const watchMs = 100;
/**
 * Upper bound of the time between SIGTERM and SIGKILL for processes that a command left behind, and
 * for attempts that another runner has.
 */
const shortGraceMs = 5_000;
/**
 * Pauses between checks whether all processes are gone: each check reads every process of the
 * machine.
 */
const [goneCheckMs, longestGoneCheckMs] = [20, 500];
/** Processes that end within this time after the command do not count as left behind. */
const settleMs = 200;

export class Supervisor implements RunningAttempt {
  readonly attemptId: string;
  readonly gpus: readonly number[];
  readonly done: Promise<void>;
  readonly #options: SupervisorOptions;
  readonly #redactor: Redactor;
  readonly #workspace: Workspace;
  readonly #output: CommandOutput;
  #spool!: Spool;
  #spoolWatch!: SpoolWatch;
  #uplink!: RecordSender;
  #command: RunningCommand | undefined;
  /** Only for a command that must never run twice. */
  #leaseWatch: LeaseWatch | undefined;
  #stop: Outcome | undefined;
  /** Time of the SIGKILL, by `performance.now()`. */
  #killAt = Infinity;
  /** True once no process of the attempt runs any more. */
  #ended = false;
  #startedAt: number | null = null;
  #abandoned = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#redactor = new Redactor(secretValues(options.assignment, options.host));
    this.#output = new CommandOutput(this.#redactor, (record) => this.#record(record));
    this.attemptId = options.assignment.attemptId;
    const folder = join(options.workDir, 'attempts', this.attemptId);
    this.#workspace = new Workspace(folder, options.assignment, options.user);
    this.gpus = options.assignment.gpus;
    this.done = this.#run();
  }

  acknowledge(acknowledgement: Acknowledgement): void {
    this.#uplink?.acknowledge(acknowledgement);
  }

  ask(): void {
    this.#uplink?.ask();
  }

  /**
   * Ends the command: the stop file, SIGTERM, and SIGKILL after the grace. The attempt's end has
   * this outcome. A second call can only shorten the grace.
   */
  stop(outcome: Outcome, graceMs = this.#options.graceMs): void {
    if (this.#ended) return;
    this.#killAt = Math.min(this.#killAt, performance.now() + graceMs);
    if (this.#stop) return;
    this.#stop = outcome;
    try {
      this.#workspace.announceStop(outcome, this.#killAt - performance.now());
    } catch (error) {
      this.#options.onTrouble?.(error);
    }
    this.#command?.signal('SIGTERM');
  }

  abandon(graceMs: number): void {
    this.#abandoned = true;
    this.stop('DRAINED', graceMs);
    void this.#uplink?.end();
  }

  async #run(): Promise<void> {
    const { assignment, workDir, append, renew, heartbeatMs } = this.#options;
    const { attemptId, leaseToken } = assignment;
    const folder = join(workDir, 'attempts', attemptId);
    this.#spool = await Spool.create(join(folder, 'spool'), this.#options.spoolBytes);
    this.#spoolWatch = new SpoolWatch(this.#spool, this.attemptId, this.#output, this.#options.onTrouble);
    this.#uplink = new RecordSender({
      attemptId,
      leaseToken,
      spool: this.#spool,
      append,
      renew: () => renew(attemptId, leaseToken),
      heartbeatMs,
      onDirective: (directive) => this.#obey(directive),
      onRestored: (lost) => this.#tellRestored(lost),
      onTrouble: this.#options.onTrouble,
    });
    try {
      const end = await this.#execute().catch((error: unknown) => notStarted(error, this.#redactor));
      this.#ended = true;
      this.#leaseWatch?.end();
      if (!this.#abandoned) {
        const { outcome, exitCode, signal, oomKilled, message } = end;
        const time = Date.now();
        this.#record({
          type: 'finished',
          time,
          outcome,
          exitCode,
          signal,
          ...(oomKilled ? { oomKilled } : {}),
          message,
          ...this.#spool.sumLines(),
        });
        await this.#uplink.drained();
      }
    } finally {
      await this.#uplink.end();
      const removed = [this.#spool.remove(), this.#workspace.forget()];
      await Promise.all(removed).catch((error: unknown) => this.#options.onTrouble?.(error));
    }
  }

  async #execute(): Promise<CommandEnd & { outcome: Outcome; message: string }> {
    const { assignment, executor, host, gatewayUrl, virtualGpus, user, whenCut, leaseMs } = this.#options;
    if (this.#options.refusal) throw new Error(this.#options.refusal);
    const { folders, name } = this.#workspace;
    await this.#workspace.make(assignment.spec);
    this.#output.say(
      `Attempt ${assignment.attemptNumber} on ${this.#options.place}: ${describeCommand(assignment.command, this.#redactor)}`,
    );
    if (whenCut === 'stop' || assignment.spec['on_cut'] === 'stop') {
      this.#leaseWatch = new LeaseWatch(this.#uplink, await executor.guard(name), leaseMs);
      await this.#leaseWatch.confirmed(() => this.#stop !== undefined);
    }
    const earlyStop = this.#stop;
    if (earlyStop) return { outcome: earlyStop, exitCode: null, signal: null, message: 'Stopped before it began.' };

    const env = environmentOf(assignment, folders, { host, gatewayUrl, virtualGpus, now: Date.now(), user });
    const command = await executor.start({
      attemptId: this.attemptId,
      command: assignment.command,
      env,
      cwd: folders.work,
      user,
      onOutput: (stream, chunk) => this.#output.write(stream, chunk),
    });
    this.#command = command;
    this.#leaseWatch?.watch(command);
    this.#startedAt = Date.now();
    this.#record({ type: 'started', time: this.#startedAt });
    if (this.#stop) command.signal('SIGTERM'); // `stop` was called during the start
    sampleUsage(command, (record) => this.#record(record)).catch((error: unknown) => this.#options.onTrouble?.(error));
    const watch = this.#watch(command, assignment.timeoutSeconds);
    try {
      const lifeKept = this.#workspace
        .keepLife(command.life)
        .catch((error: unknown) => this.#options.onTrouble?.(error));
      const end = await command.ended;
      await lifeKept;
      const outcome = this.#stop ?? (end.signal ? 'SIGNALLED' : 'EXITED');
      this.#output.end();
      await this.#endRest(command);
      return { ...end, outcome, message: '' };
    } finally {
      clearInterval(watch);
    }
  }

  /**
   * Checks every 100 ms: the timeout, a SIGKILL that is due, the lease, and a spool that cannot be
   * written.
   */
  #watch(command: RunningCommand, timeoutSeconds: number | null): NodeJS.Timeout {
    const timeoutAt = timeoutSeconds === null ? Infinity : performance.now() + timeoutSeconds * 1000;
    return setInterval(() => {
      if (performance.now() >= timeoutAt && !this.#stop) {
        this.#output.say(`The timeout of ${timeoutSeconds} s is over: stopping.`);
        this.stop('TIMEOUT');
      }
      this.#watchSpool();
      this.#watchLease();
      if (performance.now() >= this.#killAt) command.signal('SIGKILL');
    }, watchMs);
  }

  #watchLease(): void {
    const remainingMs = this.#leaseWatch?.check(this.#options.graceMs) ?? null;
    if (remainingMs === null) return;
    if (!this.#stop)
      this.#output.say('No gateway was heard for most of the lease: stopping, before another runner may start.');
    this.stop('CUT_OFF', remainingMs);
  }

  #watchSpool(): void {
    if (this.#spoolWatch.check() || this.#stop) return;
    this.#output.say('Neither the disk of the runner nor the gateway takes any more records: stopping.');
    this.stop('DRAINED');
  }

  /**
   * Names the processes that the command left behind in the log, sends them SIGTERM, then SIGKILL.
   * Returns when all are proved to be gone.
   */
  async #endRest(command: RunningCommand): Promise<void> {
    for (const settledAt = performance.now() + settleMs; performance.now() < settledAt; await sleep(goneCheckMs)) {
      if (await command.isGone()) return;
    }
    const left = await command.listLeft();
    if (left.length > 0) this.#output.say(describeLeft(left, this.#redactor));
    command.signal('SIGTERM');
    this.#killAt = Math.min(this.#killAt, performance.now() + Math.min(shortGraceMs, this.#options.graceMs));
    for (let pauseMs = goneCheckMs; !(await command.isGone()); pauseMs = Math.min(2 * pauseMs, longestGoneCheckMs)) {
      await sleep(pauseMs);
    }
  }

  #obey(directive: Directive): void {
    if (directive.type === 'CANCEL') {
      this.stop('CANCELLED', directive.graceSeconds === null ? undefined : directive.graceSeconds * 1000);
      return;
    }
    // Another runner may have the job: no record of this attempt is stored any more, so it must
    // end.
    this.abandon(Math.min(shortGraceMs, this.#options.graceMs));
  }

  /** Repeats `started`, which may be among the lost records. */
  #tellRestored(lost: number): void {
    if (this.#ended) return;
    if (this.#startedAt !== null) this.#record({ type: 'started', time: this.#startedAt });
    this.#output.say(
      `The gateway's database came back older, from a backup: ${lost} records of this attempt are lost.`,
    );
  }

  #record(record: RunnerRecord): void {
    if (this.#abandoned) return;
    this.#spool.append(record);
    this.#uplink.notify();
  }
}
