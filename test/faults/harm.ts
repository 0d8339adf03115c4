// When what goes wrong: about once a second, chosen by a seed, up to three at a time.
import { setTimeout as sleep } from 'node:timers/promises';
import { type Fault, type FaultContext, type FaultName, faults } from './faults.ts';
import type { Chance } from './random.ts';
import { Captured } from './uplink-faults.ts';
import type { Weather } from './weather.ts';
import type { World } from './world.ts';

/** Times each fault was done. */
export type FaultCounts = Partial<Record<FaultName, number>>;

export type HarmOptions = Pick<FaultContext, 'mayOverlap' | 'jobs' | 'clients'> & {
  signal: AbortSignal;
  only: readonly FaultName[];
  /** Mean time between two faults. */
  everyMs: number;
  weather: Weather;
};

/** Does what goes wrong until the signal; resolves when everything is healed again. */
export async function doHarm(world: World, chance: Chance, options: HarmOptions): Promise<FaultCounts> {
  const counts: FaultCounts = {};
  const captured = new Captured(world);
  const context = { world, chance, captured, ...options };
  const names = options.only.flatMap((name) => Array<FaultName>(faults[name].weight).fill(name));
  const active = new Map<FaultName, Promise<void>>();
  const doOne = async (name: FaultName) => {
    const fault: Fault = faults[name];
    const end = fault.hostile ? null : options.weather.begin();
    try {
      const isDone = await fault.run(context);
      if (isDone) counts[name] = (counts[name] ?? 0) + 1;
      return isDone;
    } finally {
      end?.();
    }
  };
  while (!options.signal.aborted) {
    await sleep(chance.between(options.everyMs / 2, (options.everyMs * 3) / 2));
    const name = chance.of(names);
    // Not the same twice at a time, and never everything at once.
    if (active.has(name) || active.size >= 3 || options.signal.aborted) continue;
    const server = serverOf(name);
    if (server && [...active.keys()].some((other) => overlapping(serverOf(other), server))) continue;
    active.set(
      name,
      doOne(name)
        .then(() => {})
        .finally(() => active.delete(name)),
    );
  }
  await Promise.all(active.values());
  // Some rare paths come from one fault only: a short run that had no such luck tries again. Hostile jobs may have met
  // other faults before their record, e.g. a lost machine; nothing stops one that starts now.
  const isTaken = async (figure: string) => {
    await world.counters.read();
    return world.counters.sum(`astraml_${figure}_total`) > 0;
  };
  for (let n = 0; n < 8 && names.includes('reorder batches') && !(await isTaken('holes_refused')); n++) {
    await doOne('reorder batches');
    await sleep(300);
  }
  if (names.includes('refused records') && !(await isTaken('refused_records'))) {
    for (let isDone = false, n = 0; n < 8 && !isDone; n++) isDone = await doOne('refused records');
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
