// The harness tests itself: each known mistake is planted into a copy of the product, and must be caught. A patch that
// does not fit any more fails loudly, so that the table cannot rot.
import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { guard } from '../support/guard.ts';
import type { FaultName } from './faults.ts';
import { runOnce } from './run.ts';

type Bug = {
  name: string;
  /** File, what stands there once, and what stands there instead. */
  patches: [file: string, from: string, to: string][];
  /** Faults that bring it to light; all when undefined. */
  only?: FaultName[];
  /** Invariants of which one must be violated: others may be on a slow machine. Any when undefined. */
  violates?: string[];
  /** How long jobs may take to end; 20 s when undefined. */
  calmMs?: number;
};

export const bugs: Bug[] = [
  {
    name: 'acknowledge before the commit',
    patches: [
      [
        'src/intake/batches.ts',
        'return takeBatches(tx, batches, leaseSeconds, added, maxMetricNames);',
        `return takeBatches(tx, batches, leaseSeconds, added, maxMetricNames).then(async (early) => {
          for (const { channel, acknowledgement } of early)
            await store.bus.publish(channel, JSON.stringify(acknowledgement)).catch(() => {});
          await new Promise((resolve) => setTimeout(resolve, 100));
          return early;
        });`,
      ],
    ],
    only: ['kill Redis and Postgres at once'], // the entry waits on its stream, so that has to go as well
  },
  {
    name: 'no high-water mark',
    patches: [
      ['src/intake/accept.ts', 'if (last <= attempt.mark) counts.duplicates++;', 'if (last < 1) counts.duplicates++;'],
    ],
    only: ['repeat batches', 'cut connections', 'kill gateway'],
  },
  {
    name: 'no fence',
    patches: [
      [
        'src/attempt/attempt.ts',
        'return row.finishedAt === null && row.leaseToken === leaseToken;',
        'return row.leaseToken === leaseToken;',
      ],
    ],
    only: ['cut a machine off'],
  },
  {
    name: 'a cursor by serial number',
    patches: [['src/live/changes.ts', 'pg_snapshot_xmin(', 'pg_snapshot_xmax(']],
    only: ['slow a link', 'stop gateway'],
  },
  {
    name: 'MAXLEN on the uplink',
    patches: [['src/bus/redis-entry.ts', "xadd(key, '*', 'b', batch)", "xadd(key, 'MAXLEN', 5, '*', 'b', batch)"]],
    only: ['stop gateway', 'kill gateway'],
  },
  {
    name: 'no quarantine',
    patches: [
      [
        'src/intake/uplink-reader.ts',
        'if (group.length === 1 && first) this.#setBack(first, error);',
        'if (first) throw error;',
      ],
    ],
    only: ['refused records'],
    // Intake stops on every gateway: what was printed by then waits, and what was not is never begun.
    violates: ['a bystander is stored within 30 s', 'no job is stuck'],
    calmMs: 40_000,
  },
  {
    name: 'quarantine without its control experiment',
    patches: [['src/intake/quarantine.ts', 'await requireSound(store, typesOf(batch));', '']],
    only: ['break the inserts of a gateway'],
    violates: ['lines are what was printed', 'nothing is lost', 'nothing of a bystander is refused'],
  },
];

const mostSeeds = 5;

export type HuntOptions = {
  first: number;
  seconds: number;
  /** Parts of the names of bugs; all when undefined. */
  names?: readonly string[] | undefined;
  leaseSeconds?: number;
};

/** Plants each and prints bug → invariants → seeds needed; false when one was not caught. */
export async function hunt(product: string, options: HuntOptions): Promise<boolean> {
  const chosen = bugs.filter(({ name }) => options.names?.some((part) => name.includes(part)) ?? true);
  let allCaught = chosen.length > 0;
  for (const bug of chosen) {
    const { folder, remove } = plant(product, bug);
    try {
      const caught = await seedsUntilCaught(folder, bug, options);
      allCaught &&= caught.length > 0;
      console.log(caught === '' ? `${bug.name}: NOT CAUGHT in ${mostSeeds} seeds` : `${bug.name}: ${caught}`);
    } finally {
      await remove();
    }
  }
  return allCaught;
}

async function seedsUntilCaught(
  copy: string,
  { only, violates, calmMs = 20_000 }: Bug,
  { first, seconds, leaseSeconds }: HuntOptions,
): Promise<string> {
  for (let n = 0; n < mostSeeds; n++) {
    const options = {
      seed: first + 2 * n, // odd ones: where nothing is stopped when it is cut off, more can go wrong
      seconds,
      persistence: 'none',
      product: copy,
      only,
      everyMs: 500,
      calmMs,
      leaseSeconds,
    } as const;
    const { violations, faults } = await runOnce(options);
    console.log(`  seed ${options.seed}: ${Object.entries(faults).flat().join(' ')}`);
    for (const { invariant, what } of violations.slice(0, 5)) console.log(`  ${invariant}: ${what.slice(0, 300)}`);
    const invariants = [...new Set(violations.map(({ invariant }) => invariant))];
    if (invariants.some((name) => violates?.includes(name) ?? true))
      return `${invariants.join('; ')} (${n + 1} ${n === 0 ? 'seed' : 'seeds'})`;
  }
  return '';
}

/** A copy of the product with the bug in it, which is removed when this process is gone. Throws when the bug fits no more. */
export function plant(product: string, bug: Bug): { folder: string; remove(): Promise<void> } {
  const patched = bug.patches.map(([file, from, to]) => {
    const text = readFileSync(join(product, file), 'utf8');
    const times = text.split(from).length - 1;
    if (times !== 1) throw new Error(`"${bug.name}" fits no more: ${file} holds ${times} times: ${from}`);
    return { file, text: text.replace(from, () => to) };
  });
  const folder = mkdtempSync(join(tmpdir(), 'astraml-planted-'));
  const watchdog = guard({ name: `the copy with "${bug.name}"`, folder });
  for (const name of ['src', 'bin', 'drizzle', 'package.json']) {
    cpSync(join(product, name), join(folder, name), { recursive: true });
  }
  symlinkSync(join(product, 'node_modules'), join(folder, 'node_modules'));
  for (const { file, text } of patched) writeFileSync(join(folder, file), text);
  return {
    folder,
    async remove() {
      watchdog.release();
      await rm(folder, { recursive: true });
    },
  };
}
