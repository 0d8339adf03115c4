// Places queued jobs on the runners that wait at this gateway. A notification of new work costs one
// read of the queue, and a transaction only for a runner that would get a job. When each of 200
// idle runners looked for itself, a submission cost 178 transactions that queued for one row lock.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Actor } from '../../actor.ts';
import { claimJob, findClaimed } from '../../attempt/claim.ts';
import { place, rank, withPlaced } from '../../attempt/place.ts';
import { readCluster, readQueue, untilNextRetry } from '../../attempt/queue.ts';
import { channels } from '../../bus/bus.ts';
import type { SecretKey } from '../../config.ts';
import { workFigures } from '../../metrics-registry.ts';
import { Closers } from '../closers.ts';
import { commit, type Store } from '../../live/commit.ts';
import type { Assignment, ClaimRequest } from '../../protocol/control.ts';
import { requireRunner, type Runner, touchRunner } from '../../runner/runner.ts';
import { giveWay } from '../../turns.ts';

/** A notification may be lost while Redis is away, so the queue is read this often while a runner waits. */
const lookEveryMs = 5_000;
/**
 * Pause before the queue is read again after a failure, or after another gateway took a job first.
 */
const retryMs = 500;

type DispatcherOptions = {
  leaseSeconds: number;
  secretKeys: readonly SecretKey[];
  /** Called with the first failure of an outage. */
  report(error: unknown): void;
};

type Claim = {
  actor: Actor;
  runner: Runner;
  request: ClaimRequest;
  /** Ends the wait with an assignment; null when there is no job. */
  answer(assignment: Assignment | null): void;
  fail(error: unknown): void;
};

export class Dispatcher {
  readonly #store: Store;
  readonly #options: DispatcherOptions;
  /** Claims by runner and request. When a runner repeats a request, only its newest call waits. */
  readonly #waiting = new Map<string, Claim>();
  readonly #closers = new Closers();
  #isDirty = false;
  #turning: Promise<void> | null = null;
  #timer: NodeJS.Timeout | undefined;
  #hasFailed = false;

  static async start(store: Store, options: DispatcherOptions): Promise<Dispatcher> {
    const dispatcher = new Dispatcher(store, options);
    const look = () => dispatcher.#look();
    dispatcher.#closers.defer(await store.bus.subscribe(channels.work, look));
    dispatcher.#closers.defer(store.bus.onBreak(look));
    return dispatcher;
  }

  private constructor(store: Store, options: DispatcherOptions) {
    [this.#store, this.#options] = [store, options];
  }

  /**
   * Returns the next job for a runner and waits for one as long as the request says; null when
   * there is none by then, or when `signal` says that the runner has gone. A request whose answer
   * was lost gets the same answer again.
   */
  async claim(actor: Actor, request: ClaimRequest, signal: AbortSignal): Promise<Assignment | null> {
    const { database } = this.#store;
    const runner = await requireRunner(database.db, actor, request.runnerId);
    if (request.waitSeconds === 0 || (await findClaimed(database.db, request))) return this.#claimNow(actor, request);
    await commit(this.#store, (tx) => touchRunner(tx, runner.id, { claims: true }));
    const assignment = await this.#wait({ actor, runner, request }, signal);
    if (assignment || signal.aborted) return assignment;
    // Another gateway may have answered the runner's first call meanwhile, and the answer was lost.
    return (await findClaimed(database.db, request)) ? this.#claimNow(actor, request) : null;
  }

  /**
   * Resolves when the turn in progress has ended. The signals of the claims have ended all waits
   * before.
   */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#closers.close();
    await this.#turning;
  }

  async #claimNow(actor: Actor, request: ClaimRequest): Promise<Assignment | null> {
    const { leaseSeconds, secretKeys } = this.#options;
    const assignment = await commit(this.#store, (tx) => claimJob(tx, actor, request, leaseSeconds, secretKeys));
    workFigures.placements.inc({ outcome: assignment ? 'placed' : 'none' });
    return assignment;
  }

  #wait(call: Pick<Claim, 'actor' | 'runner' | 'request'>, signal: AbortSignal): Promise<Assignment | null> {
    if (signal.aborted) return Promise.resolve(null);
    const key = keyOf(call.request);
    const { promise, resolve, reject } = Promise.withResolvers<Assignment | null>();
    const claim: Claim = { ...call, answer: resolve, fail: reject };
    const leave = () => {
      if (this.#waiting.get(key) === claim) this.#waiting.delete(key);
      resolve(null);
    };
    const timer = setTimeout(leave, call.request.waitSeconds * 1000);
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

  /** Reads the queue in a turn. All notifications that come during a turn cause one more. */
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
        this.#lookIn(Math.min(isForestalled ? retryMs : lookEveryMs, nextMs ?? lookEveryMs));
      } catch (error) {
        if (!this.#hasFailed) this.#options.report(error);
        this.#hasFailed = true;
        await sleep(retryMs);
        this.#isDirty = true;
      }
    }
    this.#turning = null;
  }

  #lookIn(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#waiting.size > 0) this.#timer = setTimeout(() => this.#look(), Math.max(0, ms)).unref();
  }

  /**
   * Reads the queue once and places all jobs that can be placed. Returns true when another gateway
   * took one of them first.
   */
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
      // this claim has ended: its runner would not get the job
      if (this.#waiting.get(keyOf(request)) !== claim) continue;
      const placed = place(queue, cluster, request.runnerId, ranked);
      if (!placed) continue;
      let assignment: Assignment | null = null;
      try {
        assignment = await this.#claimNow(actor, request);
      } catch (error) {
        claim.fail(error); // e.g. a revoked token: only this claim fails
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

  /**
   * Answers the newest call of the request: the runner may have repeated it meanwhile, and listens
   * to that one.
   */
  #answer(claim: Claim, assignment: Assignment): void {
    (this.#waiting.get(keyOf(claim.request)) ?? claim).answer(assignment);
  }
}

function keyOf({ runnerId, requestId }: ClaimRequest): string {
  return `${runnerId} ${requestId}`;
}
