// The spool keeps every record until it is committed, in order and under its number, whatever the disk does.
import './support/leaks.ts';
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import fc from 'fast-check';
import { Spool } from '../src/agent/spool.ts';
import { numbersOf, type RunnerRecord } from '../src/protocol/record.ts';
import { expectNoLeaks } from './support/leaks.ts';
import { until } from './support/until.ts';

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

async function withSpool(work: (spool: Spool, folder: string) => Promise<void>): Promise<void> {
  const folder = newFolder();
  const spool = await Spool.create(folder);
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
const sizeOf = (folder: string) => filesOf(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);

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

test('any use gives what a plain array would', async () => {
  const append = fc.record({
    does: fc.constant('append' as const),
    sizes: fc.array(fc.nat(120_000), { maxLength: 12 }),
  });
  const appendGap = fc.record({ does: fc.constant('gap' as const), lines: fc.integer({ min: 1, max: 1_000 }) });
  const read = fc.record({
    does: fc.constant('read' as const),
    records: fc.integer({ min: 1, max: 8 }),
    bytes: fc.nat(300_000),
  });
  const commit = fc.record({ does: fc.constant('commit' as const), share: fc.double({ min: 0, max: 1, noNaN: true }) });
  const wait = fc.record({ does: fc.constant('wait' as const) });
  const step = fc.oneof({ weight: 4, arbitrary: append }, appendGap, { weight: 3, arbitrary: read }, commit, wait);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), (steps) =>
      withSpool(async (spool) => {
        const model: { number: number; record: RunnerRecord }[] = [];
        let next = 1;
        let committed = 0;
        const add = (record: RunnerRecord) => {
          spool.append(record);
          model.push({ number: next, record });
          next += numbersOf(record);
        };
        for (const one of steps) {
          if (one.does === 'append') for (const size of one.sizes) add(line(`${next}é`.padEnd(size, 'x')));
          if (one.does === 'gap') add(gap(one.lines));
          if (one.does === 'wait') await new Promise((resolve) => setTimeout(resolve, 110));
          if (one.does === 'commit') {
            const open = model.filter(({ number }) => number > committed);
            const upTo = open[Math.floor(one.share * open.length) - 1];
            if (upTo) committed = upTo.number + numbersOf(upTo.record) - 1;
            await spool.release(committed);
          }
          if (one.does === 'read') {
            const expected = model.filter(({ number }) => number > committed).map(({ record }) => record);
            const { first, last, records } = await spool.read(committed, one.records, one.bytes);
            assert.equal(first, committed + 1);
            assert.deepEqual(records, expected.slice(0, records.length));
            assert.ok(records.length >= Math.min(1, expected.length) && records.length <= one.records);
            assert.equal(last, committed + records.reduce((sum, record) => sum + numbersOf(record), 0));
          }
        }
        assert.equal(spool.last, next - 1);
        const rest = model.filter(({ number }) => number > committed).map(({ record }) => record);
        assert.deepEqual(await readAll(spool, committed), rest);
      }),
    ),
    { numRuns: 40 },
  );
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
