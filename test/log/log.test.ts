// The log: dense numbers, read from either end, and a limit that leaves a gap and never an end.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { changeJob, readJob } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { appendLog } from '../../src/log/append.ts';
import type { LogFilter } from '../../src/log/filter.ts';
import type { NewGap, NewLine } from '../../src/log/log.ts';
import { readExcerpt, readLog, readLogBackward } from '../../src/log/read.ts';
import { newJob, openStore, type TestStore } from '../support/store.ts';
import fc from 'fast-check';

let store: TestStore;
before(async () => void (store = await openStore()));
after(() => store.close());

const line = (text: string, more: Partial<NewLine> = {}): NewLine => ({ time: 1_000, stream: 'STDOUT', text, ...more });
const append = (id: string, items: (NewLine | NewGap)[], attempt = 1) =>
  commit(store, (tx) => changeJob(tx, id, (locked) => appendLog(tx, locked, attempt, items)));

async function all(id: string, filter?: LogFilter) {
  const { line: head } = await readJob(store.database.db, id);
  return readLog(store.database.db, id, { after: 0, head, maxLines: 1e6, maxBytes: Infinity, filter });
}

suite('a log', () => {
  test('in chunks of any size, with gaps anywhere, reads the same in pages of any size from either end', async () => {
    const item = fc.oneof(
      { weight: 5, arbitrary: fc.constant('line') },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 9 }) },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(item, { minLength: 1, maxLength: 8 }), { maxLength: 40 }),
        fc.integer({ min: 1, max: 20 }),
        async (chunks, size) => {
          const { id } = await newJob(store);
          let number = 0;
          const wanted: number[] = [];
          for (const chunk of chunks) {
            await append(
              id,
              chunk.map((kind) => {
                if (typeof kind === 'number') {
                  number += kind;
                  return { time: 1, lines: kind, reason: 'SPOOL_OVERFLOW' };
                }
                wanted.push(++number);
                return line(`line ${number}`);
              }),
            );
          }
          const { line: head } = await readJob(store.database.db, id);
          assert.equal(head, number);
          const forward: number[] = [];
          let missing = 0;
          for (let position = 0, more = true; more;) {
            const page = await readLog(store.database.db, id, {
              after: position,
              head,
              maxLines: size,
              maxBytes: Infinity,
            });
            forward.push(...page.lines.map(({ seq }) => seq));
            missing += page.gaps.reduce((sum, gap) => sum + gap.toSeq - gap.fromSeq + 1, 0);
            ({ position, more } = page);
          }
          const backward: number[] = [];
          for (let before = head + 1, more = true; more;) {
            const page = await readLogBackward(store.database.db, id, { before, maxLines: size, maxBytes: Infinity });
            backward.unshift(...page.lines.map(({ seq }) => seq));
            ({ position: before, more } = page);
          }
          assert.deepEqual(forward, wanted);
          assert.deepEqual(backward, wanted);
          assert.equal(missing, number - wanted.length);
        },
      ),
      { numRuns: 15 },
    );
  });

  test('is filtered by stream, attempt, time and text', async () => {
    const { id } = await newJob(store);
    await append(id, [line('Alpha', { time: 1_000 }), line('beta', { stream: 'STDERR', time: 2_000 })]);
    await append(id, [line('\u001b[31mALP\u001b[0mHA 100%', { time: 3_000 })], 2);
    const texts = async (filter: LogFilter) => (await all(id, filter)).lines.map(({ seq }) => seq);
    assert.deepEqual(await texts({ search: 'alpha' }), [1, 3], 'escape sequences do not count');
    assert.deepEqual(await texts({ search: '0%' }), [3]);
    assert.deepEqual(await texts({ search: '.*' }), []);
    assert.deepEqual(await texts({ streams: ['STDERR'] }), [2]);
    assert.deepEqual(await texts({ attempt: 2 }), [3]);
    assert.deepEqual(await texts({ since: new Date(2_000), until: new Date(3_000) }), [2]);
  });

  test('ends a batch at its bytes, but holds one line at least', async () => {
    const { id } = await newJob(store);
    await append(
      id,
      Array.from({ length: 10 }, () => line('x'.repeat(1_000))),
    );
    const read = (maxBytes: number) => readLog(store.database.db, id, { after: 0, head: 10, maxLines: 100, maxBytes });
    assert.equal((await read(2_500)).lines.length, 3);
    assert.equal((await read(1)).lines.length, 1);
  });

  test('shows its end without escape sequences', async () => {
    const { id } = await newJob(store);
    await append(id, [line('one'), line('\u001b]0;title\u0007\u001b[1mtwo\u001b[0m\0')]);
    assert.deepEqual(await readExcerpt(store.database.db, id, 2, { maxLines: 5, attempt: 1 }), ['one', 'two\ufffd']);
  });

  test('beyond its limit keeps its head and its tail, and the middle is one gap', async () => {
    const { id } = await newJob(store, { logs: { max_bytes: 20_000 } });
    for (let n = 0; n < 200; n++) await append(id, [line(`${n} ${'x'.repeat(500)}`)]);
    const { lines, gaps } = await all(id);
    const bytes = lines.reduce((sum, { text }) => sum + text.length, 0);
    assert.ok(bytes > 12_000 && bytes <= 21_000, `${bytes} bytes are kept`);
    assert.equal(lines[0]?.seq, 1);
    assert.equal(lines.at(-1)?.seq, 200);
    assert.equal(gaps.length, 1);
    assert.equal(gaps[0]?.reason, 'LOG_LIMIT');
    const missing = (gaps[0]?.toSeq ?? 0) - (gaps[0]?.fromSeq ?? 0) + 1;
    assert.equal(lines.length + missing, 200, 'what is missing is named');
    const tail = await readLogBackward(store.database.db, id, { before: 201, maxLines: 1_000, maxBytes: Infinity });
    assert.deepEqual(tail.lines, lines);
    assert.deepEqual(tail.gaps, gaps);
  });
});
