// The spool keeps every record until it is committed, in order and under its number, whatever the disk does.
import '../support/leaks.ts';
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import fc from 'fast-check';
import { decodeEntries, lastOf, recordOf } from '../../src/agent/spool-entry.ts';
import { Spool } from '../../src/agent/spool.ts';
import { nextLinesCrc, numbersOf, type RunnerRecord } from '../../src/protocol/record.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { until } from '../support/until.ts';

const root = mkdtempSync(join(tmpdir(), 'spool-'));
after(async () => {
  rmSync(root, { recursive: true, force: true });
  await expectNoLeaks();
});

let spools = 0;
const newFolder = () => join(root, String(++spools));
const line = (text: string): RunnerRecord => ({ type: 'line', time: 1, stream: 'STDOUT', text });
const gap = (lines: number): RunnerRecord => ({ type: 'gap', time: 1, lines, reason: 'SPOOL_OVERFLOW' });
const unlimited = [1e9, 1e12] as const;

async function withSpool(
  work: (spool: Spool, folder: string) => Promise<void>,
  { folder = newFolder(), bound }: { folder?: string; bound?: number } = {},
): Promise<void> {
  const spool = await Spool.create(folder, bound);
  try {
    await work(spool, folder);
  } finally {
    await spool.remove();
    assert.ok(!existsSync(folder), 'its folder is gone');
  }
}

/** Everything from a number on, as an uplink would read it. */
async function readAll(
  spool: Spool,
  after: number,
  maxRecords = 1_000,
  maxBytes = 256 * 1024,
): Promise<RunnerRecord[]> {
  const all: RunnerRecord[] = [];
  for (let position = after; position < spool.last;) {
    const { first, last, records } = await spool.read(position, maxRecords, maxBytes);
    assert.equal(first, position + 1);
    assert.ok(last > position, 'reading goes on');
    all.push(...records);
    position = last;
  }
  return all;
}

const filesOf = (folder: string) => (existsSync(folder) ? readdirSync(folder) : []);
const sizeOf = (folder: string) =>
  filesOf(folder).reduce((sum, name) => sum + (statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0), 0);

suite('records', () => {
  test('are numbered from 1, and a gap takes as many numbers as it has lines', () =>
    withSpool(async (spool) => {
      assert.equal(spool.last, 0);
      assert.deepEqual(await spool.read(0, ...unlimited), { first: 1, last: 0, records: [] });
      spool.append(line('a'));
      spool.append(gap(40));
      spool.append(line('b'));
      assert.equal(spool.last, 42);
      assert.deepEqual(await spool.read(0, ...unlimited), {
        first: 1,
        last: 42,
        records: [line('a'), gap(40), line('b')],
      });
      assert.deepEqual(await spool.read(1, 1, 1e9), { first: 2, last: 41, records: [gap(40)] });
      assert.deepEqual(await spool.read(41, ...unlimited), { first: 42, last: 42, records: [line('b')] });
      assert.deepEqual((await spool.read(42, ...unlimited)).records, []);
    }));

  test('are read up to a number of them and of bytes, one at least', () =>
    withSpool(async (spool) => {
      for (let n = 0; n < 10; n++) spool.append(line('é'.repeat(500)));
      assert.equal((await spool.read(0, 3, 1e9)).records.length, 3);
      assert.equal((await spool.read(0, 100, 2_500)).records.length, 2);
      assert.equal((await spool.read(0, 100, 1)).records.length, 1);
    }));

  test('are on disk soon, and their files go when they are committed', () =>
    withSpool(async (spool, folder) => {
      const text = 'x'.repeat(10_000);
      for (let n = 0; n < 500; n++) spool.append(line(`${n} ${text}`));
      await until(() => sizeOf(folder) > 500 * 10_000, { what: 'all on disk' });
      const before = filesOf(folder).length;
      assert.ok(before >= 5);
      assert.equal(statSync(folder).mode & 0o777, 0o700);
      assert.equal(statSync(join(folder, filesOf(folder)[0] ?? '')).mode & 0o777, 0o600);
      await spool.release(250);
      assert.ok(filesOf(folder).length < before);
      assert.deepEqual(
        await readAll(spool, 250),
        Array.from({ length: 250 }, (_, n) => line(`${n + 250} ${text}`)),
      );
      await spool.release(500);
      assert.equal(filesOf(folder).length, 1);
      spool.append(line('more'));
      assert.deepEqual(await readAll(spool, 500), [line('more')]);
    }));

  test('that are committed at once are never written', () =>
    withSpool(async (spool, folder) => {
      for (let n = 0; n < 50; n++) spool.append(line('y'.repeat(100_000)));
      await spool.release(50);
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.equal(sizeOf(folder), 0);
    }));

  test('come back from disk when memory has forgotten them, while more are written', () =>
    withSpool(async (spool) => {
      const count = 60_000;
      const expected: string[] = [];
      const texts: string[] = [];
      let position = 0;
      for (let n = 0; n < count; n++) {
        const text = `${n} ${'z'.repeat(n % 200)}`;
        expected.push(text);
        spool.append(line(text));
        if (n % 4_000 !== 0) continue;
        const { last, records } = await spool.read(position, 1_000, 1e9); // far behind: it reads files
        for (const record of records) texts.push(record.type === 'line' ? record.text : '');
        position = last;
        await new Promise((resolve) => setTimeout(resolve, 15));
      }
      await until(() => spool.heldBytes < 3 * 1024 * 1024, { what: 'memory is bounded' });
      for (const record of await readAll(spool, position)) texts.push(record.type === 'line' ? record.text : '');
      assert.deepEqual(texts, expected);
    }));
});

/** Reads as an uplink does, and keeps what it was told of every number: a record, or that it is lost. */
class Reader {
  readonly reported = new Map<number, RunnerRecord>();
  readonly spool: Spool;
  committed = 0;
  #last = 0;

  constructor(spool: Spool) {
    this.spool = spool;
  }

  async read(records: number, bytes: number): Promise<void> {
    const { last } = this.spool;
    const batch = await this.spool.read(this.committed, records, bytes);
    assert.equal(batch.first, this.committed + 1);
    assert.ok(batch.records.length <= records && (batch.records.length > 0 || this.committed === last));
    let number = batch.first;
    for (const record of batch.records) {
      for (let taken = numbersOf(record); taken > 0; taken--, number++) {
        const before = this.reported.get(number);
        if (record.type !== 'gap' || !before) assert.deepEqual(record, before ?? record, 'it stays what it was');
        else assert.equal(before.type, 'gap');
        this.reported.set(number, record);
      }
    }
    assert.equal(batch.last, number - 1);
    this.#last = Math.max(this.#last, batch.last);
  }

  /** The batch, or a part of it, is committed. */
  async commit(share = 1): Promise<void> {
    this.committed += Math.floor(share * (this.#last - this.committed));
    await this.spool.release(this.committed);
  }

  async readAll(): Promise<void> {
    for (; this.committed < this.spool.last; await this.commit()) await this.read(1_000, 256 * 1024);
  }
}

const isLosable = (record: RunnerRecord) => record.type === 'line' && record.stream !== 'SYSTEM';

/** Checks a reader that has read all against what was appended, in order; how many lines were lost. */
function checkAll({ reported, spool }: Reader, appended: readonly RunnerRecord[]): number {
  assert.equal(reported.size, appended.length);
  const stored: string[] = [];
  appended.forEach((record, index) => {
    const seen = reported.get(index + 1);
    if (seen?.type === 'gap') assert.ok(isLosable(record), `${record.type} is never lost`);
    else assert.deepEqual(seen, record);
    if (seen?.type === 'line' && isLosable(seen)) stored.push(seen.text);
  });
  const lost = appended.filter(isLosable).length - stored.length;
  assert.equal(spool.lostLines, lost);
  assert.deepEqual(spool.sumLines(), { lines: stored.length, linesCrc: stored.reduce(nextLinesCrc, 0) });
  return lost;
}

const points = (step: number): RunnerRecord => ({ type: 'points', time: 1, step, epoch: null, values: { loss: step } });
const system = (text: string): RunnerRecord => ({ type: 'line', time: 1, stream: 'SYSTEM', text });

test('whatever is appended, read and committed, each number is delivered as it was, or in a gap of lost lines', async (t) => {
  const bound = 64 * 1024;
  const segment = bound / 16;
  const append = fc.record({
    does: fc.constant('append' as const),
    kinds: fc.array(fc.constantFrom('line', 'line', 'line', 'points', 'system'), { maxLength: 6 }),
    size: fc.oneof(fc.nat(60), fc.nat(3_000)),
    times: fc.integer({ min: 1, max: 12 }),
  });
  const read = fc.record({
    does: fc.constant('read' as const),
    records: fc.integer({ min: 1, max: 40 }),
    bytes: fc.nat(20_000),
  });
  const commit = fc.record({
    does: fc.constant('commit' as const),
    share: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 1, noNaN: true })),
  });
  const wait = fc.record({ does: fc.constant('wait' as const) });
  const step = fc.oneof({ weight: 6, arbitrary: append }, { weight: 2, arbitrary: read }, commit, {
    weight: 1,
    arbitrary: wait,
  });
  let [lostAll, runs] = [0, 0];
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
      const folder = newFolder();
      return withSpool(
        async (spool) => {
          const appended: RunnerRecord[] = [];
          const reader = new Reader(spool);
          let kept = 0;
          const add = (record: RunnerRecord) => {
            spool.append(record);
            appended.push(record);
            kept += isLosable(record) ? 48 : JSON.stringify(record).length + 10;
          };
          const reading: Promise<void>[] = [];
          for (const one of steps) {
            if (one.does === 'append') {
              for (let n = 0; n < one.times; n++)
                for (const kind of one.kinds) {
                  const text = `${appended.length} é`.padEnd(one.size, 'x');
                  add(kind === 'points' ? points(appended.length) : kind === 'system' ? system(text) : line(text));
                }
            }
            if (one.does === 'wait') await new Promise((resolve) => setTimeout(resolve, 110));
            // Not waited for: appending goes on while it reads files.
            if (one.does === 'read') reading.push(reader.read(one.records, one.bytes));
            if (one.does === 'commit') {
              await Promise.all(reading.splice(0));
              await reader.commit(one.share);
            }
            const allowed = Math.max(bound, kept) + segment;
            assert.ok(sizeOf(folder) <= allowed, `${sizeOf(folder)} bytes on disk, ${allowed} allowed`);
          }
          await Promise.all(reading);
          await reader.readAll();
          lostAll += checkAll(reader, appended);
          runs++;
        },
        { folder, bound },
      );
    }),
    { numRuns: 60 },
  );
  t.diagnostic(`${lostAll} lines were lost in ${runs} runs`);
  assert.ok(lostAll > 0, 'the bound was reached');
});

suite('past its bound', () => {
  const bound = 1024 * 1024;

  test('the oldest lines that were never read become one gap, and everything else arrives', () =>
    withSpool(
      async (spool, folder) => {
        const appended: RunnerRecord[] = [];
        const add = (record: RunnerRecord) => {
          spool.append(record);
          appended.push(record);
        };
        const reader = new Reader(spool);
        for (let n = 1; n <= 100; n++) add(line(`early ${n}`));
        await reader.read(100, 1e9); // on its way, and not committed
        for (let n = 1; n <= 60_000; n++) {
          add(line(`line ${n} ${'x'.repeat(40)}`));
          if (n % 5_000 === 0) await until(() => sizeOf(folder) > 0 && spool.heldBytes < 300_000, { what: 'on disk' });
          if (n % 100 === 0) assert.ok(sizeOf(folder) <= bound + bound / 16, `${sizeOf(folder)} bytes`);
        }
        await until(() => filesOf(folder).length < 20, { what: 'few files' });
        await reader.read(100, 1e9);
        await reader.commit();
        assert.deepEqual(reader.reported.get(100), line('early 100'));
        const gaps = new Set<RunnerRecord>();
        while (reader.committed < spool.last) {
          await reader.read(1_000, 256 * 1024);
          await reader.commit();
        }
        for (const record of reader.reported.values()) if (record.type === 'gap') gaps.add(record);
        assert.equal(gaps.size, 1, [...gaps].map((record) => JSON.stringify(record)).join());
        const lost = checkAll(reader, appended);
        assert.ok(lost > 40_000 && lost < 56_000, `${lost} lost`);
      },
      { bound },
    ));

  test('points and lines in turn: the points all arrive, and what is left of the lines takes little', () =>
    withSpool(
      async (spool, folder) => {
        const appended: RunnerRecord[] = [];
        const reader = new Reader(spool);
        for (let n = 0; n < 12_000; n++) {
          for (const record of [line(`step ${n} ${'x'.repeat(150)}`), points(n)]) {
            spool.append(record);
            appended.push(record);
          }
          if (n % 1_000 === 0) await new Promise((resolve) => setTimeout(resolve, 120));
        }
        await until(() => spool.heldBytes < 200_000, { what: 'all on disk' });
        assert.ok(sizeOf(folder) < 12_000 * 140 + bound / 16, `${sizeOf(folder)} bytes`);
        await reader.readAll();
        assert.ok(checkAll(reader, appended) > 10_000);
      },
      { bound },
    ));

  test('with a disk that takes nothing memory is bounded too, and the newest lines arrive', async () => {
    const folder = newFolder();
    writeFileSync(folder, 'a file where the folder should be');
    const spool = await Spool.create(join(folder, 'spool'), bound);
    const appended: RunnerRecord[] = [];
    for (let n = 0; n < 100_000; n++) {
      appended.push(line(`${n} ${'x'.repeat(50)}`));
      spool.append(appended.at(-1) ?? line(''));
      if (n % 20_000 === 0) await new Promise((resolve) => setTimeout(resolve, 150));
    }
    assert.ok(spool.failure);
    assert.ok(spool.heldBytes <= bound, `${spool.heldBytes} bytes held`);
    const reader = new Reader(spool);
    await reader.readAll();
    assert.ok(checkAll(reader, appended) > 80_000);
    await spool.remove().catch(() => {});
    rmSync(folder);
  });

  test('its files can be read at any moment, torn as they may be at their end', () =>
    withSpool(
      async (spool, folder) => {
        for (let n = 0; n < 30_000; n++) {
          spool.append(line(`${n} ${'x'.repeat(60)}`));
          if (n % 1_500 !== 0) continue;
          await new Promise((resolve) => setTimeout(resolve, 10 + (n % 100)));
          const files = filesOf(folder).filter((name) => name.endsWith('.jsonl'));
          let next = 0;
          for (const name of files.toSorted()) {
            const bytes = readFileSync(join(folder, name));
            const torn = bytes.subarray(0, bytes.length - (n % 40));
            for (const entry of decodeEntries(torn)) {
              if (entry.number < next) continue; // stands in the file before as well
              const record = recordOf(entry.text);
              if (record.type === 'line') assert.ok(record.text.startsWith(`${entry.number - 1} `));
              next = lastOf(entry) + 1;
            }
          }
        }
      },
      { bound },
    ));
});

suite('a disk that takes nothing', () => {
  test('is told, loses no record, and is written when it takes something again', async () => {
    const folder = newFolder();
    writeFileSync(folder, 'a file where the folder should be');
    const spool = await Spool.create(join(folder, 'spool'));
    const records = Array.from({ length: 3_000 }, (_, n) => line(`${n} ${'x'.repeat(2_000)}`));
    for (const record of records) spool.append(record);
    await until(() => spool.failure, { what: 'it is told' });
    assert.ok(spool.heldBytes > 6_000_000);
    assert.deepEqual(await readAll(spool, 0), records);
    rmSync(folder);
    await until(() => !spool.failure && spool.heldBytes < 3_000_000, { what: 'it is written' });
    spool.append(line('last'));
    assert.deepEqual(await readAll(spool, 0), [...records, line('last')]);
    await until(() => sizeOf(join(folder, 'spool')) > 6_000_000, { what: 'all on disk' });
    assert.equal(spool.failure, undefined);
    await spool.remove();
    rmSync(folder, { recursive: true });
  });

  test('does not keep the spool from ending', async () => {
    const folder = newFolder();
    writeFileSync(folder, 'a file where the folder should be');
    const spool = await Spool.create(join(folder, 'spool'));
    spool.append(line('a'));
    await until(() => spool.failure);
    await spool.remove().catch(() => {});
    await expectNoLeaks();
  });
});

test('appending never waits for the disk', () =>
  withSpool(async (spool) => {
    const startedAt = performance.now();
    for (let n = 0; n < 100_000; n++) spool.append(line(`step ${n} loss 0.5 ${'x'.repeat(60)}`));
    const ms = performance.now() - startedAt;
    assert.ok(ms < 2_000, `100,000 records took ${ms} ms`);
    assert.equal((await readAll(spool, 0)).length, 100_000);
  }));
