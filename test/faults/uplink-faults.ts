// What can go wrong on the uplink: batches repeated, reordered and sent too late, entries that are no batches, batches that
// nobody may send, and a stream that takes no more entries. All of it is sent as any runner could send it.
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { decodeBatch, encodeBatch } from '../../src/protocol/record.ts';
import type { Chance } from './random.ts';
import type { World } from './world.ts';

export type UplinkContext = { world: World; chance: Chance; captured: Captured };

/** What `work` resolves with; false while Redis is away. */
export async function withRedis<T>(world: World, work: (redis: Redis) => Promise<T>): Promise<T | false> {
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

/** Junk of our own is not worth a repeat. */
const looksLikeBatch = /^[0-9a-f]{8}\{"version":1,"attemptId":"att_(?!nobody)/;

/** Batches that passed, for a later repeat. */
export class Captured {
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
              const [field, text = ''] = fields;
              if (field === 'b' && looksLikeBatch.test(text)) this.batches.push({ stream, text });
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
export async function resend(context: UplinkContext, how: 'repeat' | 'reorder' | 'old'): Promise<boolean> {
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

/** The highest id that an entry can have: a stream that holds it takes no other, until it is deleted. */
const highestId = '18446744073709551615-18446744073709551615';

/** Ends a stream for everybody with one entry; false when it is at its end already. */
export async function exhaust({ world, chance }: UplinkContext): Promise<boolean> {
  return withRedis(world, async (redis) => (await redis.xadd(chance.of(streams), highestId, 'b', 'x')) !== null);
}

/** Entries that hold no batch, or one that nobody may send; a few of each. */
export async function sendJunk(context: UplinkContext): Promise<boolean> {
  const { world, chance, captured } = context;
  const known = captured.batches.slice(-50).flatMap(({ stream, text }) => {
    const batch = decodeBatch(text);
    return batch ? [{ stream, text, batch }] : [];
  });
  return withRedis(world, async (redis) => {
    const strangers = { version: 1, attemptId: 'att_nobody', leaseToken: 'lease_nobody', first: 1 } as const;
    const line = { type: 'line', time: Date.now(), stream: 'STDOUT', text: 'line of nobody' };
    for (let n = 0; n < 5; n++) {
      const stream = chance.of(streams);
      await redis.xadd(stream, '*', 'junk', 'x', 'b', '', 'b', 'y');
      await redis.xadd(stream, '*', 'b', 'ffffffff{"version":1}');
      await redis.xadd(stream, '*', 'b', Buffer.alloc(chance.between(1, 64 * 1024), 0x80));
      await redis.xadd(stream, '*', 'b', encodeBatch({ ...strangers, records: [line] }));
    }
    await redis.set('astraml:uplink:junk', 'x'.repeat(chance.between(1, 64 * 1024)));
    for (let n = 0; known.length > 0 && n < 5; n++) {
      const { stream, text, batch } = chance.of(known);
      const cut = chance.between(9, Math.max(9, text.length - 1));
      await redis.xadd(stream, '*', 'b', text.slice(0, cut) + 'x' + text.slice(cut + 1)); // its checksum is wrong
      await redis.xadd(stream, '*', 'b', encodeBatch({ ...batch, leaseToken: 'lease_nobody', records: [line] }));
      await redis.xadd(stream, '*', 'b', encodeBatch({ ...batch, first: batch.first + 100_000, records: [line] }));
    }
    return true;
  });
}
