// What goes wrong, about once a second, from a seed. Each fault heals by itself after its time; `heal()` ends them all.
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { decodeBatch, encodeBatch } from '../../src/protocol/record.ts';
import type { Proxy } from '../support/proxy.ts';
import type { Chance } from './random.ts';
import { type Gateway, killMachine, type Machine, signalMachine, type World } from './world.ts';

export type FaultName = keyof typeof faults;

/** Times each fault was done. */
export type FaultCounts = Partial<Record<FaultName, number>>;

type Context = { world: World; chance: Chance; mayOverlap: boolean; captured: Captured };

const gatewaysUp = ({ world }: Context) => world.gateways.filter(({ down }) => !down);
const machinesUp = ({ world }: Context) => world.machines.filter(({ down }) => !down);

/** Each does its harm, waits, and undoes it. Weight says how often it is chosen. */
const faults = {
  'kill gateway': { weight: 3, run: (context: Context) => withGateway(context, 'SIGKILL') },
  'restart gateway with drain': { weight: 2, run: (context: Context) => withGateway(context, 'SIGTERM') },
  'stop gateway': {
    weight: 2,
    async run(context: Context) {
      const gateway = pick(context, gatewaysUp(context));
      if (!gateway) return false;
      const { child } = gateway;
      child.kill('SIGSTOP');
      await sleep(context.chance.between(300, 5_000));
      child.kill('SIGCONT');
      return true;
    },
  },
  'kill runner': {
    weight: 2,
    run: (context: Context) => withMachine(context, (machine) => machine.runner.kill('SIGKILL')),
  },
  'kill machine': { weight: 2, run: (context: Context) => withMachine(context, killMachine) },
  'stop machine': {
    weight: 1,
    async run(context: Context) {
      const machine = pick(context, machinesUp(context));
      // A machine that stands still for longer than its lease works on for a moment when it wakes.
      if (!machine) return false;
      signalMachine(machine, 'SIGSTOP');
      await sleep(context.chance.between(300, context.mayOverlap ? 7_000 : 2_000));
      signalMachine(machine, 'SIGCONT');
      return true;
    },
  },
  'kill supervisor': {
    weight: 1,
    async run(context: Context) {
      const supervisors = machinesUp(context)
        .flatMap((machine) => context.world.processesOf(machine))
        .filter(({ isSupervisor }) => isSupervisor);
      const victim = pick(context, supervisors);
      if (victim) process.kill(victim.pid, 'SIGKILL');
      return victim !== null;
    },
  },
  'kill Redis': {
    weight: 2,
    async run({ world, chance }: Context) {
      await world.redis.kill();
      await sleep(chance.between(0, 2_000));
      await world.redis.restart();
      return true;
    },
  },
  'stop Redis': {
    weight: 1,
    async run({ world, chance }: Context) {
      await world.redis.kill('SIGSTOP');
      await sleep(chance.between(300, 4_000));
      await world.redis.kill('SIGCONT');
      return true;
    },
  },
  'kill Postgres': {
    weight: 2,
    async run({ world, chance }: Context) {
      await world.postgres.kill();
      await sleep(chance.between(0, 1_500));
      await world.postgres.restart();
      return true;
    },
  },
  'kill Redis and Postgres at once': {
    weight: 1,
    async run({ world, chance }: Context) {
      // Postgres first stands still, so that transactions are open and what waits for them is on its way.
      await world.postgres.kill('SIGSTOP');
      await sleep(chance.between(100, 600));
      await Promise.all([world.redis.kill(), world.postgres.kill()]);
      await sleep(chance.between(0, 1_000));
      await Promise.all([world.redis.restart(), world.postgres.restart()]);
      return true;
    },
  },
  'stop Postgres': {
    weight: 1,
    async run({ world, chance }: Context) {
      await world.postgres.kill('SIGSTOP');
      await sleep(chance.between(300, 3_000));
      await world.postgres.kill('SIGCONT');
      return true;
    },
  },
  'cut connections': {
    weight: 4,
    async run({ world, chance }: Context) {
      for (const link of linksOf(world)) if (chance.is(0.3)) link.cut();
      await sleep(0);
      return true;
    },
  },
  'hold a link': {
    weight: 3,
    async run({ world, chance }: Context) {
      const link = chance.of(linksOf(world));
      link.hold();
      await sleep(chance.between(300, 5_000));
      link.pass();
      if (chance.is(0.5)) link.cut();
      return true;
    },
  },
  'cut a machine off': {
    weight: 2,
    async run(context: Context) {
      const machine = pick(context, machinesUp(context));
      if (!machine) return false;
      const links = Object.values(machine.links);
      for (const link of links) link.hold();
      await sleep(context.chance.between(2_000, 14_000)); // a lease, and one more until it may be ended, is 8 s
      for (const link of links) {
        link.cut();
        link.pass();
      }
      return true;
    },
  },
  'slow a link': {
    weight: 2,
    async run({ world, chance }: Context) {
      const link = chance.of(linksOf(world));
      link.slow(chance.between(50, 500));
      await sleep(chance.between(500, 3_000));
      link.pass();
      return true;
    },
  },
  'fill a disk': {
    weight: 1,
    async run({ world, chance }: Context) {
      const machine = world.machines.find(({ smallDisk }) => smallDisk);
      if (!machine) return false;
      const file = join(machine.workDir, 'filler');
      try {
        writeFileSync(file, Buffer.alloc(16 * 1024 * 1024));
      } catch {
        // it is full now
      }
      await sleep(chance.between(500, 3_000));
      rmSync(file, { force: true });
      return true;
    },
  },
  'set a clock': {
    weight: 2,
    async run({ world, chance }: Context) {
      if (!world.setClock) return false;
      world.setClock(chance.of(['+3600', '-3600', '+5', '-5']));
      await sleep(chance.between(500, 3_000));
      world.setClock('+0');
      return true;
    },
  },
  FLUSHALL: {
    weight: 2,
    run: ({ world }: Context) => withRedis(world, async (redis) => (await redis.flushall()) === 'OK'),
  },
  'repeat batches': { weight: 4, run: (context: Context) => resend(context, 'repeat') },
  'reorder batches': { weight: 4, run: (context: Context) => resend(context, 'reorder') },
  'send batches of ended attempts': { weight: 3, run: (context: Context) => resend(context, 'old') },
} satisfies Record<string, { weight: number; run(context: Context): Promise<boolean> }>;

export const faultNames = Object.keys(faults) as FaultName[];

/** Does what goes wrong until the signal; resolves when everything is healed again. */
export async function doHarm(
  world: World,
  chance: Chance,
  options: { signal: AbortSignal; mayOverlap: boolean; only?: readonly FaultName[]; everyMs: number },
): Promise<FaultCounts> {
  const counts: FaultCounts = {};
  const captured = new Captured(world);
  const context = { world, chance, mayOverlap: options.mayOverlap, captured };
  const names = (options.only ?? faultNames).flatMap((name) => Array<FaultName>(faults[name].weight).fill(name));
  const active = new Map<FaultName, Promise<void>>();
  while (!options.signal.aborted) {
    await sleep(chance.between(options.everyMs / 2, (options.everyMs * 3) / 2));
    const name = chance.of(names);
    // Not the same twice at a time, and never everything at once.
    if (active.has(name) || active.size >= 3 || options.signal.aborted) continue;
    const server = serverOf(name);
    if (server && [...active.keys()].some((other) => overlapping(serverOf(other), server))) continue;
    const done = faults[name]
      .run(context)
      .then((did) => void (did && (counts[name] = (counts[name] ?? 0) + 1)))
      .finally(() => active.delete(name));
    active.set(name, done);
  }
  await Promise.all(active.values());
  // A hole comes only from this, and only of records that are new: a short run that had no such luck tries again.
  const wanted = 'reorder batches';
  const isRefused = async () => {
    await world.counters.read();
    return world.counters.sum('astraml_holes_refused_total') > 0;
  };
  for (let n = 0; n < 8 && names.includes(wanted) && !(await isRefused()); n++) {
    if (await faults[wanted].run(context)) counts[wanted] = (counts[wanted] ?? 0) + 1;
    await sleep(300);
  }
  await captured.stop();
  return counts;
}

/** Servers that a fault kills or stops: not two of them at one server at a time. */
function serverOf(name: FaultName): string {
  return ['Redis', 'Postgres'].filter((server) => name.includes(server)).join(' ');
}

function overlapping(one: string, other: string): boolean {
  return one.split(' ').some((server) => server !== '' && other.includes(server));
}

function pick<T>({ chance }: Context, from: readonly T[]): T | null {
  return from.length === 0 ? null : chance.of(from);
}

async function withGateway(context: Context, signal: 'SIGKILL' | 'SIGTERM'): Promise<boolean> {
  const gateway = pick<Gateway>(context, gatewaysUp(context));
  if (!gateway) return false;
  gateway.down = true;
  gateway.child.kill('SIGCONT'); // it may be stopped just now
  gateway.child.kill(signal);
  await gateway.child.untilEnd();
  await sleep(context.chance.between(0, 1_500));
  await context.world.startGateway(gateway);
  return true;
}

async function withMachine(context: Context, end: (machine: Machine) => void): Promise<boolean> {
  const machine = pick<Machine>(context, machinesUp(context));
  if (!machine) return false;
  machine.down = true;
  end(machine);
  await machine.runner.untilEnd();
  await sleep(context.chance.between(0, 2_000));
  await context.world.startRunner(machine);
  return true;
}

function linksOf(world: World): Proxy[] {
  return [...world.gateways, ...world.machines].flatMap(({ links }) => Object.values(links) as Proxy[]);
}

async function withRedis<T>(world: World, work: (redis: Redis) => Promise<T>): Promise<T | false> {
  const redis = new Redis(world.redis.url, {
    maxRetriesPerRequest: 0,
    commandTimeout: 1_000,
    retryStrategy: () => null,
  });
  redis.on('error', () => {});
  try {
    return await work(redis);
  } catch {
    return false; // it is away just now
  } finally {
    redis.disconnect();
  }
}

const streams = Array.from({ length: 4 }, (_, n) => `astraml:uplink:${n}`);

/** Batches that passed, for a later repeat. */
class Captured {
  readonly batches: { stream: string; text: string }[] = [];
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  constructor(world: World) {
    this.#running = this.#capture(world);
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }

  async #capture(world: World): Promise<void> {
    while (!this.#ending.signal.aborted) {
      await withRedis(world, async (redis) => {
        for (;;) {
          if (this.#ending.signal.aborted) return;
          for (const stream of streams) {
            for (const [, fields] of await redis.xrange(stream, '-', '+', 'COUNT', 20)) {
              this.batches.push({ stream, text: fields[1] ?? '' });
            }
          }
          this.batches.splice(0, this.batches.length - 2_000);
          await sleep(20);
        }
      });
      await sleep(100);
    }
  }
}

/** Batches of the supervisors again, in halves and back to front, or long after their attempt was over. */
async function resend(context: Context, how: 'repeat' | 'reorder' | 'old'): Promise<boolean> {
  const { chance, captured, world } = context;
  const { batches } = captured;
  const from = how === 'old' ? batches.slice(0, 200) : batches.slice(-20);
  if (from.length === 0) return false;
  const did = await withRedis(world, async (redis) => {
    if (how === 'reorder') return reorderWaiting(redis, world);
    for (let n = 0; n < 5; n++) {
      const { stream, text } = chance.of(from);
      await redis.xadd(stream, '*', 'b', text);
    }
    return true;
  });
  return did;
}

/** Batches that wait on a stream while nobody reads, each replaced by its two halves, the second one first. */
async function reorderWaiting(redis: Redis, { gateways }: World): Promise<boolean> {
  for (const { child } of gateways) child.kill('SIGSTOP');
  try {
    let did = false;
    for (const deadline = performance.now() + 1_500; !did && performance.now() < deadline;) {
      await sleep(400); // what was being stored is, and the next batches have come
      for (const stream of streams) did = (await reorderStream(redis, stream)) || did;
    }
    return did;
  } finally {
    for (const { child } of gateways) child.kill('SIGCONT');
  }
}

async function reorderStream(redis: Redis, stream: string): Promise<boolean> {
  let did = false;
  // What a gateway has read it will store when it wakes, whatever becomes of the entry.
  const [group] = (await redis.xinfo('GROUPS', stream)) as string[][];
  const read = group?.[group.indexOf('last-delivered-id') + 1];
  for (const [id, fields] of await redis.xrange(stream, read ? `(${read}` : '-', '+', 'COUNT', 20)) {
    const batch = decodeBatch(fields[1] ?? '');
    if (!batch || batch.records.length < 2) continue;
    const half = batch.records.length >> 1;
    const second = { ...batch, first: batch.first + half, records: batch.records.slice(half) };
    const first = { ...batch, records: batch.records.slice(0, half) };
    const commands = redis.multi().xdel(stream, id);
    for (const part of [second, first]) commands.xadd(stream, '*', 'b', encodeBatch(part));
    await commands.exec();
    did = true;
  }
  return did;
}
