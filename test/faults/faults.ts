// What can go wrong. Each fault heals by itself after its time.
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Proxy } from '../support/proxy.ts';
import { breakGateway, fillDisk, refuse } from './database-faults.ts';
import type { HostileClients } from './hostile-clients.ts';
import type { HostileJobs } from './hostile-jobs.ts';
import { kindsOfNames, kindsOfRefusals } from './hostile-kinds.ts';
import type { Chance } from './random.ts';
import { type Captured, exhaust, resend, sendJunk, withRedis } from './uplink-faults.ts';
import { type Gateway, killMachine, type Machine, signalMachine, type World } from './world.ts';

export type FaultName = keyof typeof faults;

export type FaultContext = {
  world: World;
  chance: Chance;
  mayOverlap: boolean;
  captured: Captured;
  jobs: HostileJobs;
  clients: HostileClients;
};

export type Fault = {
  /** How often it is chosen. */
  weight: number;
  /** A job, a client or a runner does it, nothing breaks: nobody else may notice. */
  hostile?: true;
  /** False when it could not be done. */
  run(context: FaultContext): Promise<boolean>;
};

const gatewaysUp = ({ world }: FaultContext) => world.gateways.filter(({ down }) => !down);
const machinesUp = ({ world }: FaultContext) => world.machines.filter(({ down }) => !down);

/** Each does its harm, waits, and undoes it. */
export const faults = {
  'kill gateway': { weight: 3, run: (context: FaultContext) => withGateway(context, 'SIGKILL') },
  'restart gateway with drain': { weight: 2, run: (context: FaultContext) => withGateway(context, 'SIGTERM') },
  'stop gateway': {
    weight: 2,
    async run(context: FaultContext) {
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
    run: (context: FaultContext) => withMachine(context, (machine) => machine.runner.kill('SIGKILL')),
  },
  'kill machine': { weight: 2, run: (context: FaultContext) => withMachine(context, killMachine) },
  'stop machine': {
    weight: 1,
    async run(context: FaultContext) {
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
    async run(context: FaultContext) {
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
    async run({ world, chance }: FaultContext) {
      await world.redis.kill();
      await sleep(chance.between(0, 2_000));
      await world.redis.restart();
      return true;
    },
  },
  'stop Redis': {
    weight: 1,
    async run({ world, chance }: FaultContext) {
      await world.redis.kill('SIGSTOP');
      await sleep(chance.between(300, 4_000));
      await world.redis.kill('SIGCONT');
      return true;
    },
  },
  'kill Postgres': {
    weight: 2,
    async run({ world, chance }: FaultContext) {
      await world.postgres.kill();
      await sleep(chance.between(0, 1_500));
      await world.postgres.restart();
      return true;
    },
  },
  'kill Redis and Postgres at once': {
    weight: 1,
    async run({ world, chance }: FaultContext) {
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
    async run({ world, chance }: FaultContext) {
      await world.postgres.kill('SIGSTOP');
      await sleep(chance.between(300, 3_000));
      await world.postgres.kill('SIGCONT');
      return true;
    },
  },
  'cut connections': {
    weight: 4,
    async run({ world, chance }: FaultContext) {
      for (const link of linksOf(world)) if (chance.is(0.3)) link.cut();
      await sleep(0);
      return true;
    },
  },
  'hold a link': {
    weight: 3,
    async run({ world, chance }: FaultContext) {
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
    async run(context: FaultContext) {
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
    async run({ world, chance }: FaultContext) {
      const link = chance.of(linksOf(world));
      link.slow(chance.between(50, 500));
      await sleep(chance.between(500, 3_000));
      link.pass();
      return true;
    },
  },
  'fill a disk': {
    weight: 1,
    async run({ world, chance }: FaultContext) {
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
    async run({ world, chance }: FaultContext) {
      if (!world.setClock) return false;
      world.setClock(chance.of(['+3600', '-3600', '+5', '-5']));
      await sleep(chance.between(500, 3_000));
      world.setClock('+0');
      return true;
    },
  },
  FLUSHALL: {
    weight: 2,
    run: ({ world }: FaultContext) => withRedis(world, async (redis) => (await redis.flushall()) === 'OK'),
  },
  'Postgres refuses': { weight: 2, run: refuse },
  'fill the disk of Postgres': { weight: 1, run: fillDisk },
  'break the inserts of a gateway': { weight: 2, run: breakGateway },
  'repeat batches': { weight: 4, run: (context: FaultContext) => resend(context, 'repeat') },
  'reorder batches': { weight: 4, run: (context: FaultContext) => resend(context, 'reorder') },
  'send batches of ended attempts': { weight: 3, run: (context: FaultContext) => resend(context, 'old') },
  'many metric names': {
    weight: 2,
    hostile: true,
    run: ({ jobs, world, chance }: FaultContext) => jobs.submit(world, chance, kindsOfNames),
  },
  'refused records': {
    weight: 4,
    hostile: true,
    run: ({ jobs, world, chance }: FaultContext) => jobs.submit(world, chance, kindsOfRefusals),
  },
  'hostile clients': { weight: 2, hostile: true, run: ({ clients, chance }: FaultContext) => clients.attack(chance) },
  'junk on the uplink': { weight: 2, hostile: true, run: sendJunk },
  'exhaust an uplink stream': { weight: 2, hostile: true, run: exhaust },
} satisfies Record<string, Fault>;

export const faultNames = Object.keys(faults) as FaultName[];

function pick<T>({ chance }: FaultContext, from: readonly T[]): T | null {
  return from.length === 0 ? null : chance.of(from);
}

async function withGateway(context: FaultContext, signal: 'SIGKILL' | 'SIGTERM'): Promise<boolean> {
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

async function withMachine(context: FaultContext, end: (machine: Machine) => void): Promise<boolean> {
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
