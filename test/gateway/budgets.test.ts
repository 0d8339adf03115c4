// What one operation may hold, and what its long work leaves to others: bytes of rows and answers, searches, large specs,
// many metrics, introspections. Each refusal is the same over POST, GET, SSE and WebSocket, and never a 500.
import assert from 'node:assert/strict';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { after, before, suite, test, type TestContext } from 'node:test';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { getIntrospectionQuery } from 'graphql';
import { Refusal } from '../../src/errors.ts';
import { ResultBytes } from '../../src/graphql/budget.ts';
import { toJsonInTurns } from '../../src/graphql/json.ts';
import { changeJob } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { appendLog } from '../../src/log/append.ts';
import { readLog } from '../../src/log/read.ts';
import { appendPoints } from '../../src/metric/append.ts';
import {
  createProject,
  createToken,
  dataOf,
  type Door,
  type GraphqlResult,
  jsonType,
  openDoor,
  openSocket,
  post,
  send,
  submitJob,
  transportNames,
  transports,
} from '../support/door.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { until } from '../support/until.ts';
import fc from 'fast-check';

const mebibyte = 1024 * 1024;
const many = (count: number, one: (index: number) => string) =>
  Array.from({ length: count }, (_, i) => one(i)).join(' ');

suite('a budget', () => {
  test('is given back, and what waits for it goes on', async () => {
    const all = new ResultBytes({ maxResultBytes: 4 * mebibyte, maxInFlightBytes: 6 * mebibyte });
    const [first, second] = [all.open('a'), all.open('b')];
    await first.takeRows(3 * mebibyte);
    await second.takeRows(2 * mebibyte);
    let isTaken = false;
    const waiting = second.takeRows(2 * mebibyte).then(() => (isTaken = true));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(isTaken, false);
    first.close();
    await waiting;
    second.close();
    assert.equal(all.held, 0);
    await assert.rejects(second.takeRows(1), /over/, 'what still runs of an answered operation takes nothing');
  });

  test('of one operation is bounded, and one operation runs whatever the bound of all', async () => {
    const all = new ResultBytes({ maxResultBytes: 4 * mebibyte, maxInFlightBytes: 1 });
    const alone = all.open('a');
    await alone.takeRows(4 * mebibyte);
    await alone.takeAnswer(4 * mebibyte);
    await assert.rejects(alone.takeRows(1), { code: 'OPERATION_TOO_LARGE' });
    const small = all.open('b');
    await small.takeRows(60_000); // a small one never waits
    alone.close();
    small.close();
    assert.equal(all.held, 0);
  });

  test('of all is shared: who reads slowly with one token leaves half of it to the others', async () => {
    const all = new ResultBytes({ maxResultBytes: 4 * mebibyte, maxInFlightBytes: 8 * mebibyte });
    const slow = [all.open('a'), all.open('a')];
    for (const budget of slow) await budget.takeRows(2 * mebibyte);
    const refused = assert.rejects(all.open('a').takeRows(2 * mebibyte), { code: 'OVERLOADED' });
    const other = all.open('b');
    await other.takeRows(2 * mebibyte);
    await refused;
    for (const budget of [...slow, other]) budget.close();
    assert.equal(all.held, 0);
  });
});

test('JSON that is made in turns is that of JSON.stringify, and counted to the byte', async () => {
  const check = async (value: unknown) => {
    let bytes = 0;
    const written = await toJsonInTurns(value, async (more) => void (bytes += more));
    const text = written.pieces.join('');
    assert.equal(text, JSON.stringify(value));
    assert.deepEqual([bytes, written.bytes], [Buffer.byteLength(text), Buffer.byteLength(text)]);
  };
  await fc.assert(fc.asyncProperty(fc.jsonValue({ maxDepth: 5 }), check), { numRuns: 200 });
  await check({ a: undefined, at: new Date(0), long: Array.from({ length: 500 }, (_, i) => i), more: [[], {}, null] });
  await check(Array.from({ length: 2_000 }, (_, i) => ({ seq: i, text: `\u001b[1mä${'x'.repeat(100)}` })));
});

suite('against a gateway', () => {
  let door: Door;
  let jobId: string;
  let large: string;
  before(async () => {
    door = await openDoor();
    await createProject(door.port, 'p-wide');
    jobId = await submitJob(door.port, 'p-wide');
    const text = 'x'.repeat(16_000);
    for (let batch = 0; batch < 64; batch++) {
      const lines = Array.from({ length: 16 }, () => ({ time: batch, stream: 'STDOUT' as const, text }));
      await commit(door.gateway.store, (tx) => changeJob(tx, jobId, (locked) => appendLog(tx, locked, 1, lines)));
    }
    const query = `mutation ($input: SubmitJobInput!) { submitJob(input: $input) {
      ... on SubmitJobPayload { job { id } } ... on UserError { code message } } }`;
    const extra = Object.fromEntries(Array.from({ length: 25 }, (_, i) => [`note${i}`, 'some words '.repeat(900)]));
    const spec = { projectId: 'p-wide', model: 'm', dataset: 'd', hyperparams: { extra } };
    const data = await dataOf(door.port, { query, variables: { input: { spec } } });
    large = (data['submitJob'] as unknown as { job: { id: string } }).job.id;
    for (let slice = 0; slice < 6; slice++) {
      // Three windows of each: more of all together than a follower may be opened with.
      const points = Array.from({ length: 1_200 }, (_, i) => {
        const name = `m/${String(slice * 400 + (i % 400)).padStart(4, '0')}`;
        return { name, value: i, step: 1, epoch: null, time: 1_000 + 30_000 * Math.floor(i / 400) };
      });
      await commit(door.gateway.store, (tx) =>
        changeJob(tx, jobId, (locked) => appendPoints(tx, locked, 1, slice, points)),
      );
    }
  });
  after(async () => {
    await door.close();
    await expectNoLeaks();
  });

  /** Runs a flood, and prints what a probe and the event loop meet meanwhile beside what they meet without. */
  async function besides<T>(t: TestContext, name: string, flood: () => Promise<T>): Promise<T> {
    const probe = async (isOver: () => boolean) => {
      const delay = monitorEventLoopDelay({ resolution: 1 });
      delay.enable();
      const times: number[] = [];
      do {
        const at = performance.now();
        assert.equal((await send(door.port, { method: 'GET', path: '/livez' })).status, 200);
        times.push(performance.now() - at);
      } while (!isOver() || times.length < 20);
      delay.disable();
      const sorted = times.sort((a, b) => a - b);
      const part = (share: number) => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
      return `/livez p50 ${part(0.5)} ms, max ${part(1)} ms; loop delay p99 ${Math.round(delay.percentile(99) / 1e6)} ms, max ${Math.round(delay.max / 1e6)} ms`;
    };
    const without = await probe(() => true);
    const rss = process.memoryUsage.rss();
    let [isOver, most] = [false, rss];
    const watching = setInterval(() => (most = Math.max(most, process.memoryUsage.rss())), 20);
    const beganAt = performance.now();
    const flooding = flood().finally(() => (isOver = true));
    const beside = await probe(() => isOver);
    const result = await flooding;
    clearInterval(watching);
    t.diagnostic(
      `${name}: ${Math.round(performance.now() - beganAt)} ms, RSS +${Math.round((most - rss) / mebibyte)} MiB`,
    );
    t.diagnostic(`without: ${without}`);
    t.diagnostic(`beside:  ${beside}`);
    return result;
  }

  const pages = (count: number) =>
    `{ job(id: "${jobId}") { ${many(count, (i) => `a${i}: logs(first: 1000) { nodes { text } }`)} } }`;

  test('I5: a page of long lines ends at its bytes, and goes on from its cursor', async () => {
    let [after, lines, pages] = [null as string | null, 0, 0];
    for (let more = true; more; pages++) {
      const query = `query ($after: String) { job(id: "${jobId}") { logs(first: 1000, after: $after) {
        nodes { seq } pageInfo { hasNextPage endCursor } } } }`;
      type Page = { nodes: { seq: number }[]; pageInfo: { hasNextPage: boolean; endCursor: string } };
      const { logs } = (await dataOf(door.port, { query, variables: { after } }))['job'] as unknown as { logs: Page };
      for (const { seq } of logs.nodes) assert.equal(seq, ++lines);
      [after, more] = [logs.pageInfo.endCursor, logs.pageInfo.hasNextPage];
    }
    assert.equal(lines, 1024);
    assert.equal(pages, 16);
  });

  test('I5: a page from the end likewise', async () => {
    let [before, lines] = [null as string | null, 1025];
    for (let more = true; more;) {
      const query = `query ($before: String) { job(id: "${jobId}") { logs(last: 1000, before: $before) {
        nodes { seq } pageInfo { hasPreviousPage startCursor } } } }`;
      type Page = { nodes: { seq: number }[]; pageInfo: { hasPreviousPage: boolean; startCursor: string } };
      const { logs } = (await dataOf(door.port, { query, variables: { before } }))['job'] as unknown as { logs: Page };
      for (const { seq } of logs.nodes.toReversed()) assert.equal(seq, --lines);
      [before, more] = [logs.pageInfo.startCursor, logs.pageInfo.hasPreviousPage];
    }
    assert.equal(lines, 1);
  });

  test('I5: what goes beyond the budget of an operation is refused by name, on every door', async (t) => {
    const answers = await besides(t, 'three of 12 aliases', () =>
      Promise.all(Array.from({ length: 3 }, () => post(door.port, { query: pages(12) }))),
    );
    for (const answer of answers) {
      assert.equal(answer.status, 200, answer.text.slice(0, 300));
      assert.ok(answer.text.length < 16 * mebibyte);
    }
    for (const name of transportNames) {
      const { status, result, open } = await transports[name](door.port, { query: pages(19) });
      assert.equal(result.errors?.[0]?.extensions.code, 'OPERATION_TOO_LARGE', name);
      assert.ok(open && (status ?? 400) < 500, `${name}: ${status}`);
    }
  });

  test('I5: a small page whose lines are asked for many times over is refused as well', async () => {
    const query = `{ job(id: "${jobId}") { logs(first: 60) { nodes { ${many(90, (i) => `t${i}: text`)} } } } }`;
    for (const name of transportNames) {
      const { status, result } = await transports[name](door.port, { query });
      assert.equal(result.errors?.[0]?.extensions.code, 'OPERATION_TOO_LARGE', name);
      assert.ok((status ?? 400) < 500, `${name}: ${status}`);
    }
  });

  test('I6: searches are weighed, give way, and end with a cursor to go on from', async (t) => {
    const search = (count: number) =>
      `{ job(id: "${jobId}") { ${many(count, (i) => `a${i}: logs(first: 5, filter: { search: "nohit" }) { nodes { text } pageInfo { hasNextPage endCursor } }`)} } }`;
    for (const name of transportNames) {
      const { result } = await transports[name](door.port, { query: search(99) });
      assert.equal(result.errors?.[0]?.extensions.code, 'OPERATION_TOO_LARGE', name);
    }
    const answer = await besides(t, '35 searches in 16 MB', () => post(door.port, { query: search(35) }));
    assert.equal(answer.status, 200, answer.text.slice(0, 300));
    type Page = { nodes: object[]; pageInfo: { hasNextPage: boolean; endCursor: string } };
    let page = (answer.json().data?.['job'] as unknown as Record<string, Page>)['a0'];
    const cursors = new Set<string>();
    for (; page?.pageInfo.hasNextPage; cursors.add(page.pageInfo.endCursor)) {
      assert.equal(page.nodes.length, 0);
      const query = `query ($after: String) { job(id: "${jobId}") {
        logs(first: 5, after: $after, filter: { search: "nohit" }) { nodes { text } pageInfo { hasNextPage endCursor } } } }`;
      const data = await dataOf(door.port, { query, variables: { after: page.pageInfo.endCursor } });
      page = (data['job'] as unknown as { logs: Page }).logs;
      assert.equal(cursors.has(page.pageInfo.endCursor), false);
    }
    assert.ok(cursors.size >= 1, 'the log is longer than one page looks through');
  });

  test('I6: a search ends with the operation that asked for it', async () => {
    const { db } = door.gateway.store.database;
    const over = new AbortController();
    const options = { after: 0, head: 1024, maxLines: 5, maxBytes: Infinity, filter: { search: 'nohit' } };
    const reading = readLog(db, jobId, { ...options, signal: over.signal });
    over.abort(new Refusal('TIMEOUT', 'The operation is over.'));
    await assert.rejects(reading, { code: 'TIMEOUT' });
    const brief = await readLog(db, jobId, { ...options, searchMs: 0 });
    assert.ok(brief.more && brief.position > 0 && brief.position < 1024, 'out of time it ends where it is');
  });

  test('I7: a large spec that is asked for a hundred times is refused, on every door', async (t) => {
    const query = `{ job(id: "${large}") { ${many(100, (i) => `a${i}: spec`)} } }`;
    const answer = await besides(t, '100 specs of 0.25 MB', () => post(door.port, { query }));
    assert.equal(answer.json().errors?.[0]?.extensions.code, 'OPERATION_TOO_LARGE', answer.text.slice(0, 300));
    for (const name of transportNames) {
      const { status, result, open } = await transports[name](door.port, { query });
      assert.equal(result.errors?.[0]?.extensions.code, 'OPERATION_TOO_LARGE', name);
      assert.ok(open && (status ?? 400) < 500);
    }
    const streams = `subscription { jobUpdated(jobId: "${large}") { job { ${many(90, (i) => `a${i}: spec`)} } } }`;
    const socket = await openSocket(door.port);
    socket.send({ id: '1', type: 'subscribe', payload: { query: streams } });
    const { payload } = await socket.next();
    assert.equal((payload as GraphqlResult).errors?.[0]?.extensions.code, 'OPERATION_TOO_LARGE');
    await socket.close();
  });

  test('I7: metrics come in pages by name, and what is asked below each is weighed', async (t) => {
    const names: string[] = [];
    for (let more = true; more;) {
      const query = `query ($after: String) { job(id: "${jobId}") { metricCount metrics(after: $after) { name } } }`;
      const data = await dataOf(door.port, { query, variables: { after: names.at(-1) } });
      const job = data['job'] as unknown as { metricCount: number; metrics: { name: string }[] };
      assert.equal(job.metricCount, 2_400);
      assert.ok(job.metrics.length <= 1_000);
      names.push(...job.metrics.map(({ name }) => name));
      more = job.metrics.length === 1_000;
    }
    assert.equal(new Set(names).size, 2_400);
    assert.deepEqual(names, names.toSorted());
    const refused = {
      windows: 'metrics(first: 1000) { windows(first: 900) { nodes { mean } } }',
      series: 'metrics(first: 1000) { series(maxPoints: 5000) { x y } }',
      'series of prefixes': 'metrics(names: ["m/*"], first: 1000) { series { x y } }',
    };
    for (const [what, selection] of Object.entries(refused)) {
      for (const name of transportNames) {
        const { result } = await transports[name](door.port, { query: `{ job(id: "${jobId}") { ${selection} } }` });
        assert.equal(result.errors?.[0]?.extensions.code, 'OPERATION_TOO_LARGE', `${what} over ${name}`);
      }
    }
    for (const first of [0, 1_001, -1]) {
      const { result } = await transports.POST(door.port, {
        query: `{ job(id: "${jobId}") { metrics(first: ${first}) { name } } }`,
      });
      assert.equal(result.errors?.[0]?.extensions.code, 'BAD_USER_INPUT');
    }
    const wide = 'metrics(first: 1000) { name count last { value time } min { value } max { value } }';
    const query = `{ job(id: "${jobId}") { ${many(4, (i) => `a${i}: ${wide}`)} } }`;
    const answer = await besides(t, '4,000 metrics', () => post(door.port, { query }));
    assert.equal(answer.status, 200, answer.text.slice(0, 300));
    const last = `subscription { jobMetrics(jobId: "${jobId}", last: 1000) { windows { mean } } }`;
    for (const name of ['SSE', 'WS'] as const) {
      const { result } = await transports[name](door.port, { query: last });
      assert.equal(result.errors?.[0]?.extensions.code, 'OPERATION_TOO_LARGE', name);
    }
  });

  test('I5, I7: all bytes are given back', async () => {
    const { resultBytes } = door.gateway;
    await until(() => resultBytes.held === 0, { what: 'all bytes to be given back' });
  });
});

suite('who sends no token', () => {
  let door: Door;
  before(async () => void (door = await openDoor({ ASTRAML_RATE_LIMIT_POINTS: '3000' })));
  after(() => door.close());

  const ask = (query: string, headers: Record<string, string> = {}) =>
    send(door.port, { headers: { ...jsonType, ...headers }, body: JSON.stringify({ query }) });

  test('I8: gets the standard introspections from what is kept, in the encoding that it takes', async () => {
    const query = getIntrospectionQuery();
    const first = await ask(query);
    assert.equal(first.status, 200);
    assert.ok(first.text.includes('"JobConnection"'));
    const unpack = { br: brotliDecompressSync, gzip: gunzipSync };
    for (const [encoding, unpacked] of Object.entries(unpack)) {
      const bytes = () => rawBody(door.port, query, encoding);
      await until(async () => (await bytes()).encoding === encoding, { what: `the answer in ${encoding}` });
      const { body, vary } = await bytes();
      assert.match(vary, /accept-encoding/i);
      assert.equal(unpacked(body).toString(), first.text);
    }
    const refused = await rawBody(door.port, query, 'br;q=0, identity');
    assert.equal(refused.encoding, undefined);
    assert.equal(refused.body.toString(), first.text);
    for (let n = 0; n < 100; n++) assert.equal((await ask(query)).status, 200);
  });

  test('I8: shares one account, and takes nothing from those who send one', async () => {
    const codes: (string | undefined)[] = [];
    for (let n = 0; n < 12; n++) {
      const answer = await ask(`# ${n}\n${getIntrospectionQuery()}`);
      codes.push(answer.json().errors?.[0]?.extensions.code);
    }
    assert.ok(codes.includes('RATE_LIMITED'), codes.join());
    assert.equal((await ask('{ __typename }')).status, 429);
    const reader = await createToken(door.port, { projectId: null, scopes: ['READ'] });
    assert.equal((await post(door.port, { query: '{ __typename }', token: reader })).status, 200);
  });

  test('the pages are kept ready as well', async () => {
    for (const path of ['/graphql', '/watch', '/schema/job-spec.json']) {
      const get = (encoding: string) =>
        rawBody(door.port, null, encoding, { method: 'GET', path, accept: 'text/html' });
      const plain = await get('identity');
      assert.equal(plain.encoding, undefined);
      await until(async () => (await get('br')).encoding === 'br', { what: `${path} in br`, timeoutMs: 60_000 });
      const [br, gzip] = [await get('br'), await get('gzip')];
      assert.equal(brotliDecompressSync(br.body).equals(plain.body), true);
      assert.equal(gunzipSync(gzip.body).equals(plain.body), true);
      assert.match(br.vary, /accept-encoding/i);
    }
  });
});

type Raw = { encoding: string | undefined; vary: string; body: Buffer };

async function rawBody(
  port: number,
  query: string | null,
  encoding: string,
  { method = 'POST', path = '/graphql', accept = '*/*' } = {},
): Promise<Raw> {
  const { request } = await import('node:http');
  return new Promise((resolve, reject) => {
    const headers = { ...(query ? jsonType : {}), accept, 'accept-encoding': encoding };
    const asked = request({ port, host: '127.0.0.1', method, path, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const { vary = '', 'content-encoding': encoded } = response.headers;
        resolve({ encoding: encoded, vary: String(vary), body: Buffer.concat(chunks) });
      });
    });
    asked.on('error', reject);
    asked.end(query ? JSON.stringify({ query }) : undefined);
  });
}
