// Places queued jobs on the runners that wait at this gateway. A notification of new work costs one reading of the queue,
// and a transaction of placement only for a runner that would get a job. Each of 200 idle runners looking for itself cost
// 178 transactions a submission, which stood in line for one row lock.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Actor } from '../../actor.ts';
import { claimJob, findClaimed } from '../../attempt/attempt.ts';
import { place, rank, withPlaced } from '../../attempt/place.ts';
import { readCluster, readQueue, untilNextRetry } from '../../attempt/queue.ts';
import { channels } from '../../bus/bus.ts';
import type { SecretKey } from '../../config.ts';
import { workFigures } from '../../metrics-registry.ts';
import { commit, type Store } from '../../live/commit.ts';
import type { Assignment, ClaimRequest } from '../../protocol/control.ts';
import { requireRunner, type Runner, touchRunner } from '../../runner/runner.ts';
import { giveWay } from '../../turns.ts';

/** A notification may be lost while Redis is away, so the queue is read this often while a runner waits. */
const lookEveryMs = 5_000;
/** After a turn that failed, or whose placement another gateway forestalled. */
const againMs = 500;

type DispatcherOptions = {
  leaseSeconds: number;
  secretKeys: readonly SecretKey[];
  /** Told of the first failure of an outage. */
  report(error: unknown): void;
};

type Claim = {
  actor: Actor;
  runner: Runner;
  request: ClaimRequest;
  /** Ends the wait; null when there is no job. */
  answer(assignment: Assignment | null): void;
  fail(error: unknown): void;
};

export class Dispatcher {
  readonly #store: Store;
  readonly #options: DispatcherOptions;
  /** By runner and request: of a claim that is repeated, only the last call waits. */
  readonly #waiting = new Map<string, Claim>();
  readonly #stopListening: (() => void | Promise<void>)[] = [];
  #isDirty = false;
  #turning: Promise<void> | null = null;
  #timer: NodeJS.Timeout | undefined;
  #hasFailed = false;

  static async start(store: Store, options: DispatcherOptions): Promise<Dispatcher> {
    const dispatcher = new Dispatcher(store, options);
    const look = () => dispatcher.#look();
    dispatcher.#stopListening.push(await store.bus.subscribe(channels.work, look), store.bus.onBreak(look));
    return dispatcher;
  }

  private constructor(store: Store, options: DispatcherOptions) {
    [this.#store, this.#options] = [store, options];
  }

  /**
   * The next job for a runner, waiting for one as long as the request says; null when there is none by then, or `signal`
   * says that nobody listens any more. A request whose answer was lost gets the same answer again.
   */
  async claim(actor: Actor, request: ClaimRequest, signal: AbortSignal): Promise<Assignment | null> {
    const { database } = this.#store;
    const runner = await requireRunner(database.db, actor, request.runnerId);
    if (request.waitSeconds === 0 || (await findClaimed(database.db, request))) return this.#claimNow(actor, request);
    await commit(this.#store, (tx) => touchRunner(tx, runner.id, { claims: true }));
    const assignment = await this.#wait({ actor, runner, request }, signal);
    if (assignment || signal.aborted) return assignment;
    // Its first call may have been answered by another gateway meanwhile, and the answer lost.
    return (await findClaimed(database.db, request)) ? this.#claimNow(actor, request) : null;
  }

  /** Ends when the turn in progress has; all waits were ended by their signals. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    for (const stop of this.#stopListening) await stop();
    await this.#turning;
  }

  async #claimNow(actor: Actor, request: ClaimRequest): Promise<Assignment | null> {
    const { leaseSeconds, secretKeys } = this.#options;
    const assignment = await commit(this.#store, (tx) => claimJob(tx, actor, request, leaseSeconds, secretKeys));
    workFigures.placements.inc({ outcome: assignment ? 'placed' : 'none' });
    return assignment;
  }

  #wait(asked: Pick<Claim, 'actor' | 'runner' | 'request'>, signal: AbortSignal): Promise<Assignment | null> {
    if (signal.aborted) return Promise.resolve(null);
    const key = keyOf(asked.request);
    const { promise, resolve, reject } = Promise.withResolvers<Assignment | null>();
    const claim: Claim = { ...asked, answer: resolve, fail: reject };
    const leave = () => {
      if (this.#waiting.get(key) === claim) this.#waiting.delete(key);
      resolve(null);
    };
    const timer = setTimeout(leave, asked.request.waitSeconds * 1000);
    signal.addEventListener('abort', leave);
    this.#waiting.get(key)?.answer(null);
    this.#waiting.set(key, claim);
    this.#look();
    return promise.finally(() => {
      clearTimeout(timer);
      signal.removeEventListener('abort', leave);
      leave();
      if (this.#waiting.size === 0) clearTimeout(this.#timer);
    });
  }

  /** Notifications during a turn are one turn more. */
  #look(): void {
    this.#isDirty = true;
    if (this.#waiting.size > 0) this.#turning ??= this.#turn();
  }

  async #turn(): Promise<void> {
    while (this.#isDirty && this.#waiting.size > 0) {
      this.#isDirty = false;
      try {
        const isForestalled = await this.#placeAll();
        this.#hasFailed = false;
        const nextMs = await untilNextRetry(this.#store.database.db);
        this.#lookIn(Math.min(isForestalled ? againMs : lookEveryMs, nextMs ?? lookEveryMs));
      } catch (error) {
        if (!this.#hasFailed) this.#options.report(error);
        this.#hasFailed = true;
        await sleep(againMs);
        this.#isDirty = true;
      }
    }
    this.#turning = null;
  }

  #lookIn(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#waiting.size > 0) this.#timer = setTimeout(() => this.#look(), Math.max(0, ms)).unref();
  }

  /** Places all that can be placed by one reading; true when another gateway was quicker with one of them. */
  async #placeAll(): Promise<boolean> {
    const { db } = this.#store.database;
    const claims = [...this.#waiting.values()];
    const bound = claims.flatMap(({ runner }) => runner.projectIds ?? []);
    let queue = await readQueue(db, bound.length > 0 ? [...new Set(bound)] : null);
    if (queue.length === 0) return false;
    let cluster = await readCluster(db, new Map(claims.map(({ request }) => [request.runnerId, request.freeGpus])));
    let ranked = rank(queue, cluster);
    let isForestalled = false;
    for (const claim of claims) {
      const turn = giveWay();
      if (turn) await turn;
      const { actor, request } = claim;
      if (this.#waiting.get(keyOf(request)) !== claim) continue; // nobody would hear of the job that it takes
      const placed = place(queue, cluster, request.runnerId, ranked);
      if (!placed) continue;
      let assignment: Assignment | null = null;
      try {
        assignment = await this.#claimNow(actor, request);
      } catch (error) {
        claim.fail(error); // its token may be revoked: no matter of the others
        continue;
      }
      if (assignment) this.#answer(claim, assignment);
      else isForestalled = true;
      queue = queue.filter(({ id }) => id !== placed.queued.id && id !== assignment?.job.id);
      if (assignment) cluster = withPlaced(cluster, request.runnerId, placed);
      ranked = rank(queue, cluster);
    }
    return isForestalled;
  }

  /** A call that repeats the request may have come meanwhile: it is the one that listens. */
  #answer(claim: Claim, assignment: Assignment): void {
    (this.#waiting.get(keyOf(claim.request)) ?? claim).answer(assignment);
  }
}

function keyOf({ runnerId, requestId }: ClaimRequest): string {
  return `${runnerId} ${requestId}`;
}
