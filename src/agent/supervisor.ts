// One attempt, from its assignment to its proven end: workspace, command, output to records, records to the gateway.
// The order of an end: output drained, processes gone, `finished` last, everything acknowledged.
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bus } from '../bus/bus.ts';
import type { Acknowledgement, Assignment, Directive } from '../protocol/control.ts';
import { nextLinesCrc, type RecordOf, type RunnerRecord } from '../protocol/record.ts';
import { environmentOf, type Folders } from './environment.ts';
import type { CommandEnd, Executor, RunningCommand } from './executor.ts';
import { LineSplitter } from './lines.ts';
import { markerPrefix, parseMarker } from './point.ts';
import { Spool } from './spool.ts';
import { Uplink } from './uplink.ts';

export type SupervisorOptions = {
  assignment: Assignment;
  executor: Executor;
  /** Folder of the runner; attempts have theirs inside. */
  workDir: string;
  gatewayUrl: string;
  /** Where it runs, for the log, e.g. `runner gpu-7, GPU 0 (NVIDIA H100)`. */
  place: string;
  virtualGpus: boolean;
  append: Bus['append'];
  renew(attemptId: string, leaseToken: string): Promise<Acknowledgement>;
  heartbeatMs: number;
  graceMs: number;
  host: Readonly<Record<string, string | undefined>>;
};

type Outcome = RecordOf<'finished'>['outcome'];

/** Output that is not acknowledged yet is waited for when the attempt ends, unless it was abandoned. */
const goneCheckMs = 50;

export class Supervisor {
  readonly attemptId: string;
  /** Resolves when the attempt is over and acknowledged, or was abandoned; never rejects. */
  readonly done: Promise<void>;
  readonly #options: SupervisorOptions;
  #spool!: Spool;
  #uplink!: Uplink;
  #command: RunningCommand | undefined;
  #stop: { outcome: Outcome; graceMs: number } | undefined;
  #stopFile = '';
  #abandoned = false;
  #lines = 0;
  #linesCrc = 0;
  #warnedOfMarker = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.attemptId = options.assignment.attemptId;
    this.done = this.#run();
  }

  /** An acknowledgement for this attempt, or for another one. */
  acknowledge(acknowledgement: Acknowledgement): void {
    this.#uplink?.acknowledge(acknowledgement);
  }

  /** The gateway wants to be heard of. */
  ask(): void {
    this.#uplink?.ask();
  }

  /** Ends the command: the stop file, SIGTERM to its group, SIGKILL after the grace. The attempt's end says why. */
  stop(outcome: Outcome, graceMs = this.#options.graceMs): void {
    if (this.#stop) return;
    this.#stop = { outcome, graceMs };
    const deadline = Math.round((Date.now() + graceMs) / 1000);
    if (this.#stopFile) writeFile(this.#stopFile, JSON.stringify({ reason: outcome, deadline })).catch(() => {});
    this.#command?.signal('SIGTERM');
  }

  async #run(): Promise<void> {
    const { assignment, workDir, append, renew, heartbeatMs } = this.#options;
    const { attemptId, leaseToken } = assignment;
    const folder = join(workDir, 'attempts', attemptId);
    this.#spool = await Spool.create(join(folder, 'spool'));
    this.#uplink = new Uplink({
      attemptId,
      leaseToken,
      spool: this.#spool,
      append,
      renew: () => renew(attemptId, leaseToken),
      heartbeatMs,
      onDirective: (directive) => this.#obey(directive),
    });
    try {
      const end = await this.#execute(folder).catch((error: unknown) => notStarted(error));
      if (!this.#abandoned) {
        const { outcome, exitCode, signal, message } = end;
        const time = Date.now();
        this.#record({
          type: 'finished',
          time,
          outcome,
          exitCode,
          signal,
          message,
          lines: this.#lines,
          linesCrc: this.#linesCrc,
        });
        await this.#uplink.drained();
      }
    } finally {
      await this.#uplink.end();
      await this.#spool.remove();
      await rm(join(folder, 'attempt.json'), { force: true });
    }
  }

  async #execute(folder: string): Promise<CommandEnd & { outcome: Outcome; message: string }> {
    const { assignment, executor, host, gatewayUrl, virtualGpus } = this.#options;
    const folders: Folders = {
      work: join(folder, 'work'),
      output: join(folder, 'output'),
      config: join(folder, 'config.json'),
      stopFile: join(folder, 'stop.json'),
    };
    await mkdir(folders.work, { recursive: true });
    await mkdir(folders.output, { recursive: true });
    await writeFile(folders.config, JSON.stringify(assignment.spec, null, 2));
    const { job, attemptNumber } = assignment;
    // Read by the next start of the runner, should this one be killed: it ends what is left of the attempt.
    await writeFile(join(folder, 'attempt.json'), JSON.stringify({ jobId: job.id, attempt: String(attemptNumber) }));
    this.#stopFile = folders.stopFile;
    this.#say(`Attempt ${attemptNumber} on ${this.#options.place}: ${assignment.command.join(' ')}`);
    const early = this.#stop;
    if (early) return { outcome: early.outcome, exitCode: null, signal: null, message: 'Stopped before it began.' };

    const splitters = {
      STDOUT: new LineSplitter((text, truncated) => this.#takeLine('STDOUT', text, truncated)),
      STDERR: new LineSplitter((text, truncated) => this.#takeLine('STDERR', text, truncated)),
    };
    const env = environmentOf(assignment, folders, { host, gatewayUrl, virtualGpus, now: Date.now() });
    const command = await executor.start({
      command: assignment.command,
      env,
      cwd: folders.work,
      onOutput: (stream, chunk) => splitters[stream].write(chunk),
    });
    this.#command = command;
    this.#record({ type: 'started', time: Date.now() });
    const stopped = this.#enforceStops(command, assignment.timeoutSeconds);
    const end = await command.ended;
    splitters.STDOUT.end();
    splitters.STDERR.end();
    await this.#endRest(command);
    stopped.clear();
    const outcome = this.#stopOutcome() ?? (end.signal ? 'SIGNALLED' : 'EXITED');
    return { ...end, outcome, message: '' };
  }

  #stopOutcome(): Outcome | undefined {
    return this.#stop?.outcome;
  }

  /** The timeout, and SIGKILL after the grace of a stop; also a stop that came while the command was being started. */
  #enforceStops(command: RunningCommand, timeoutSeconds: number | null): { clear(): void } {
    if (this.#stop) command.signal('SIGTERM');
    const timeout =
      timeoutSeconds === null
        ? undefined
        : setTimeout(() => {
            this.#say(`The timeout of ${timeoutSeconds} s is over: stopping.`);
            this.stop('TIMEOUT');
          }, timeoutSeconds * 1000);
    let stoppedAt: number | undefined;
    const watch = setInterval(() => {
      if (!this.#stop) return;
      stoppedAt ??= performance.now();
      if (performance.now() - stoppedAt >= this.#stop.graceMs) command.signal('SIGKILL');
    }, 100);
    return {
      clear() {
        clearTimeout(timeout);
        clearInterval(watch);
      },
    };
  }

  /** The command ended; what it left behind is asked to end, then made to. Returns when it is proved that all are gone. */
  async #endRest(command: RunningCommand): Promise<void> {
    if (await command.isGone()) return;
    command.signal('SIGTERM');
    const deadline = performance.now() + (this.#stop?.graceMs ?? Math.min(5_000, this.#options.graceMs));
    while (!(await command.isGone())) {
      if (performance.now() > deadline) command.signal('SIGKILL');
      await new Promise((resolve) => setTimeout(resolve, goneCheckMs));
    }
  }

  #obey(directive: Directive): void {
    if (directive.type === 'CANCEL') {
      this.stop('CANCELLED', directive.graceSeconds === null ? undefined : directive.graceSeconds * 1000);
      return;
    }
    // Somebody else has the job: nothing we say is stored any more, so nothing must go on.
    this.#abandoned = true;
    this.stop('DRAINED', Math.min(5_000, this.#options.graceMs));
    void this.#uplink.end();
  }

  #takeLine(stream: 'STDOUT' | 'STDERR', text: string, truncated: boolean): void {
    // Secrets are to be redacted here, before a line is parsed, written to the spool or sent.
    const time = Date.now();
    if (stream === 'STDOUT' && text.startsWith(markerPrefix)) {
      const record = parseMarker(text, time);
      if (record) return this.#record(record);
      if (!this.#warnedOfMarker)
        this.#say('A line starts with "::astraml " but is no marker that can be read; it stays in the log.');
      this.#warnedOfMarker = true;
    }
    this.#lines++;
    this.#linesCrc = nextLinesCrc(this.#linesCrc, text);
    this.#record({ type: 'line', time, stream, text, ...(truncated ? { truncated } : {}) });
  }

  #say(text: string): void {
    this.#record({ type: 'line', time: Date.now(), stream: 'SYSTEM', text });
  }

  #record(record: RunnerRecord): void {
    if (this.#abandoned) return;
    this.#spool.append(record);
    this.#uplink.notify();
  }
}

function notStarted(error: unknown): CommandEnd & { outcome: Outcome; message: string } {
  const message = error instanceof Error ? error.message : String(error);
  return { outcome: 'NOT_STARTED', exitCode: null, signal: null, message };
}
