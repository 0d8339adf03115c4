// `npm run test:faults -- --seed 1 --seeds 20 --seconds 60`: runs the product while things are killed, cut, held, slowed
// and repeated, and judges what is left. Exit code 1 when an invariant was violated, or when the faults hit nothing.
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import type { Persistence } from '../support/redis.ts';
import { percentile } from './bystanders.ts';
import { type FaultName, faultNames } from './faults.ts';
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
    lease: { type: 'string', default: '4' },
    calm: { type: 'string', default: '90' },
    only: { type: 'string', multiple: true },
    without: { type: 'string', multiple: true },
    planted: { type: 'boolean', default: false },
    bug: { type: 'string', multiple: true },
  },
});
const only = namesOf('--only', values.only) ?? faultNames;
const without = namesOf('--without', values.without) ?? [];
const chosen = only.filter((name) => !without.includes(name));
if (chosen.length === 0) throw new Error('No fault is left: --without takes away all that --only names.');
const first = whole('--seed', values.seed);
const count = whole('--seeds', values.seeds);
const seconds = whole('--seconds', values.seconds);
const slowness = { leaseSeconds: whole('--lease', values.lease), calmMs: whole('--calm', values.calm) * 1000 };
const redis = values.redis === undefined ? undefined : persistences.find((name) => name.includes(values.redis ?? ''));
if (values.redis !== undefined && !redis) throw new Error('--redis takes none, everysec or always.');

if (values.planted || values.bug)
  process.exitCode = (await hunt(product, { first, seconds, names: values.bug, leaseSeconds: slowness.leaseSeconds }))
    ? 0
    : 1;
else process.exitCode = (await runSeeds()) ? 0 : 1;

async function runSeeds(): Promise<boolean> {
  const results: Result[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const persistence = redis ?? persistences[seed % 3] ?? 'none';
    const result = await runOnce({ seed, seconds, persistence, product, only: chosen, ...slowness });
    results.push(result);
    say(result);
  }
  const missed = sometimes.filter((name) => results.every((result) => result.sometimes[name] === 0));
  if (missed.length > 0) console.log(`void: the faults never led to ${missed.join(', ')}`);
  const bad = results.reduce((sum, { violations }) => sum + violations.length, 0);
  const total = (count: (result: Result) => number) => results.reduce((sum, result) => sum + count(result), 0);
  console.log(
    `${results.length} seeds × ${seconds} s: ${total(({ figures }) => figures.jobs)} jobs, ` +
      `${total(({ figures }) => figures.lines)} lines stored, ${total(({ delivered }) => delivered)} delivered, ` +
      `${total(({ faults }) => Object.values(faults).reduce((a, b) => a + b, 0))} faults, ${bad} violations`,
  );
  for (const name of sometimes) console.log(`  ${name}: ${total((result) => result.sometimes[name])}`);
  console.log(`  ${waitsOf(results.flatMap(({ waitsMs }) => waitsMs))}`);
  return bad === 0 && missed.length === 0;
}

function say(result: Result): void {
  const { seed, persistence, whenCut, figures, faults, violations } = result;
  console.log(
    `seed ${seed}, Redis ${persistence}, when cut ${whenCut}: ${figures.jobs} jobs, ${figures.attempts} attempts, ` +
      `${figures.lines} lines, ${figures.points} points, ${result.streams} streams, ${result.delivered} lines delivered, ` +
      `calm after ${result.calmSeconds} s`,
  );
  console.log(`  faults: ${listOf(faults)}`);
  console.log(`  ${sometimes.map((name) => `${name} ${result.sometimes[name]}`).join(', ')}`);
  console.log(`  ${waitsOf(result.waitsMs)}`);
  if (Object.keys(result.answers).length > 0) console.log(`  hostile clients were answered: ${listOf(result.answers)}`);
  for (const [invariant, found] of Map.groupBy(violations, (violation) => violation.invariant)) {
    console.log(`  VIOLATED ${invariant}, ${found.length} times:`);
    for (const { what } of found.slice(0, 5)) console.log(`    ${what}`);
  }
}

/** How long lines of bystanders waited to be stored, in words. */
function waitsOf(ms: readonly number[]): string {
  const [p50, p99, most] = [percentile(ms, 0.5), percentile(ms, 0.99), percentile(ms, 1)];
  return `a line of a bystander was stored after ${p50} ms (p50), ${p99} ms (p99), ${most} ms (most)`;
}

function listOf(counts: Record<string, number>): string {
  return Object.entries(counts)
    .map(([name, times]) => `${name} ${times}`)
    .join(', ');
}

/** Names of faults, given one by one or with commas between them; undefined when the flag was not given. */
function namesOf(flag: string, texts: string[] | undefined): FaultName[] | undefined {
  if (!texts) return undefined;
  return texts
    .flatMap((text) => text.split(','))
    .map((text) => {
      const name = faultNames.find((fault) => fault === text.trim());
      if (!name) throw new Error(`${flag} takes names of faults, not "${text}": ${faultNames.join(', ')}.`);
      return name;
    });
}

function whole(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${flag} takes a whole number, not "${text}".`);
  return value;
}
