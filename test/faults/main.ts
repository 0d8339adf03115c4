// `npm run test:faults -- --seed 1 --seeds 20 --seconds 60`: runs the product while things are killed, cut, held, slowed
// and repeated, and judges what is left. Exit code 1 when an invariant was violated, or when the faults hit nothing.
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import type { Persistence } from '../support/redis.ts';
import { faultNames } from './faults.ts';
import { hunt } from './planted.ts';
import { type Result, runOnce, sometimes } from './run.ts';

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const product = fileURLToPath(new URL('../..', import.meta.url));
const persistences: Persistence[] = ['none', 'aof everysec', 'aof always'];

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '20' },
    redis: { type: 'string' },
    only: { type: 'string', multiple: true },
    planted: { type: 'boolean', default: false },
    bug: { type: 'string', multiple: true },
  },
});
const chosen = values.only && faultNames.filter((name) => values.only?.includes(name));
if (chosen?.length !== values.only?.length) throw new Error(`--only takes ${faultNames.join(', ')}.`);
const first = whole('--seed', values.seed);
const count = whole('--seeds', values.seeds);
const seconds = whole('--seconds', values.seconds);
const only = values.redis === undefined ? undefined : persistences.find((name) => name.includes(values.redis ?? ''));
if (values.redis !== undefined && !only) throw new Error('--redis takes none, everysec or always.');

if (values.planted || values.bug)
  process.exitCode = (await hunt(product, { first, seconds, names: values.bug })) ? 0 : 1;
else process.exitCode = (await runSeeds()) ? 0 : 1;

async function runSeeds(): Promise<boolean> {
  const results: Result[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const persistence = only ?? persistences[seed % 3] ?? 'none';
    const result = await runOnce({ seed, seconds, persistence, product, only: chosen });
    results.push(result);
    say(result);
  }
  const missed = sometimes.filter((name) => results.every((result) => result.sometimes[name] === 0));
  if (missed.length > 0) console.log(`void: the faults never led to ${missed.join(', ')}`);
  const bad = results.reduce((sum, { violations }) => sum + violations.length, 0);
  const total = (of: (result: Result) => number) => results.reduce((sum, result) => sum + of(result), 0);
  console.log(
    `${results.length} seeds × ${seconds} s: ${total(({ figures }) => figures.jobs)} jobs, ` +
      `${total(({ figures }) => figures.lines)} lines stored, ${total(({ delivered }) => delivered)} delivered, ` +
      `${total(({ faults }) => Object.values(faults).reduce((a, b) => a + b, 0))} faults, ${bad} violations`,
  );
  for (const name of sometimes) console.log(`  ${name}: ${total((result) => result.sometimes[name])}`);
  return bad === 0 && missed.length === 0;
}

function say(result: Result): void {
  const { seed, persistence, whenCut, figures, faults, violations } = result;
  console.log(
    `seed ${seed}, Redis ${persistence}, when cut ${whenCut}: ${figures.jobs} jobs, ${figures.attempts} attempts, ` +
      `${figures.lines} lines, ${figures.points} points, ${result.streams} streams, ${result.delivered} lines delivered, ` +
      `calm after ${result.calmSeconds} s`,
  );
  console.log(
    `  faults: ${Object.entries(faults)
      .map(([name, times]) => `${name} ${times}`)
      .join(', ')}`,
  );
  console.log(`  ${sometimes.map((name) => `${name} ${result.sometimes[name]}`).join(', ')}`);
  for (const [invariant, found] of Map.groupBy(violations, (violation) => violation.invariant)) {
    console.log(`  VIOLATED ${invariant}, ${found.length} times:`);
    for (const { what } of found.slice(0, 5)) console.log(`    ${what}`);
  }
}

function whole(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${flag} takes a whole number, not "${text}".`);
  return value;
}
