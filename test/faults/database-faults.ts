// A database that answers and refuses: what gateways must wait out, and for which they may set nothing aside.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Chance } from './random.ts';
import { closeToAll, makeReadOnly, refuseLog, takeAllPlaces } from './refusing.ts';
import type { World } from './world.ts';

type Context = { world: World; chance: Chance };
type Heal = () => Promise<void>;

/** SQLSTATEs of every class that passes, and of two that say nothing of it. */
const refusals = ['08006', '25006', '40001', '42703', '53100', '53200', '55P03', '57014'];
const healTries = 20;

/** Refuses everything, or every row of the log, for a while. */
export async function refuse({ world, chance }: Context): Promise<boolean> {
  const { postgres, databaseName, databaseUrl } = world;
  const begin = chance.of([
    () => refuseLog(databaseUrl, { code: chance.of(refusals), gateway: null }),
    () => makeReadOnly(postgres.url, databaseName),
    () => closeToAll(postgres.url, databaseName),
    () => takeAllPlaces(postgres.url, databaseName),
  ]);
  return during(begin, chance.between(500, 5_000));
}

/** One gateway's inserts into the log fail, as those of an older build might; the other's do not. */
export async function breakGateway({ world, chance }: Context): Promise<boolean> {
  const gateway = chance.between(0, world.gateways.length - 1);
  return during(() => refuseLog(world.databaseUrl, { code: '42703', gateway }), chance.between(4_000, 12_000));
}

/** Tables cannot grow for a while. */
export async function fillDisk({ world: { databaseDisk: disk }, chance }: Context): Promise<boolean> {
  if (!disk) return false;
  return during(() => Promise.resolve((disk.fill(), () => Promise.resolve(disk.empty()))), chance.between(500, 5_000));
}

async function during(begin: () => Promise<Heal>, ms: number): Promise<boolean> {
  const heal = await begin().catch(() => null); // the server is away, or too busy to be made to refuse
  if (!heal) return false;
  await sleep(ms);
  for (let tries = 1; ; tries++) {
    try {
      await heal();
      return true;
    } catch (error) {
      if (tries >= healTries) throw error;
      await sleep(250);
    }
  }
}
