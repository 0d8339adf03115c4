// Many who ask the same cost one execution; nobody sees what is another's; and who does not read harms nobody.
import { after, before, suite, test } from 'node:test';
import { GraphQLObjectType, GraphQLSchema, GraphQLString, parse } from 'graphql';
import { readConfig } from '../../src/config.ts';
import { liveFigures } from '../../src/metrics-registry.ts';
import { schema } from '../../src/gateway/graphql/schema.ts';
import {
  SharedExecution,
  isShared,
  isViewerNeutral,
  type SharedOptions,
} from '../../src/gateway/graphql/shared-execution.ts';
import { ResultBytes } from '../../src/graphql/budget.ts';
import { addEvent, changeJob } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { appendLog } from '../../src/log/append.ts';
import { appendPoints } from '../../src/metric/append.ts';
import {
  adminToken,
  bearer,
  createProject,
  createToken,
  type Door,
  jsonType,
  openDoor,
  openSocket,
  post,
  type Socket,
  submitJob,
} from '../support/door.ts';
import { openFeeder } from '../support/feeder.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { until } from '../support/until.ts';
import assert from 'node:assert/strict';
import fc from 'fast-check';

const resultBytes = new ResultBytes(readConfig({}));

after(() => expectNoLeaks());

type Batch = { lines: { seq: number; text: string }[]; endCursor: string; caughtUp: boolean; done: boolean };
type Next = { id: string; type: string; payload: { data: { jobLogs: Batch }; errors?: unknown[] } };

const logs = `subscription Logs($jobId: ID!, $after: String) {
  jobLogs(jobId: $jobId, after: $after) { lines { seq text } endCursor caughtUp done }
}`;

const count = async (figure: { get(): Promise<{ values: { value: number }[] }> }) =>
  (await figure.get()).values[0]?.value ?? 0;

const countTimed = async () =>
  (await liveFigures.deliveryLag.get()).values.find(({ metricName }) => metricName?.endsWith('_count'))?.value ?? 0;

function batchesOf(socket: Socket): Batch[] {
  return (socket.received as Next[]).filter(({ type }) => type === 'next').map(({ payload }) => payload.data.jobLogs);
}

suite('identical subscriptions', () => {
  let door: Door;
  let jobId: string;
  before(async () => {
    door = await openDoor();
    await createProject(door.port, 'p-shared');
    jobId = await submitJob(door.port, 'p-shared');
  });
  after(() => door.close());

  test('of 500 sockets cost one execution a batch and no read, and all get the same in order', async () => {
    const runner = await createToken(door.port, { projectId: null, scopes: ['RUNNER'] });
    const feeder = await openFeeder(door.url, runner, door.gateway.store.bus);
    const sockets: Socket[] = [];
    for (let n = 0; n < 500; n++) {
      const socket = await openSocket(door.port);
      // Another spelling, another name of a variable: it is the same that is asked.
      const query = n % 2 ? logs : logs.replace(/\s+/g, ' ').replaceAll('$jobId', '$job');
      socket.send({
        id: `${n}`,
        type: 'subscribe',
        payload: { query, variables: { [n % 2 ? 'jobId' : 'job']: jobId } },
      });
      sockets.push(socket);
    }
    await until(() => sockets.every((socket) => batchesOf(socket).length > 0), { timeoutMs: 20_000 });
    const head = Math.max(
      ...sockets.flatMap((socket) => batchesOf(socket).flatMap(({ lines }) => lines.map(({ seq }) => seq))),
      0,
    );
    const [timed, executions, reads, deliveries] = await Promise.all([
      countTimed(),
      count(liveFigures.executions),
      count(liveFigures.reads),
      count(liveFigures.deliveries),
    ]);
    const began = Date.now();
    const before = sockets.map((socket) => batchesOf(socket).length);
    for (let n = 0; n < 20; n++) await feeder.lines([`${n} a`, `${n} b`, `${n} c`]);
    const isWhole = (socket: Socket) => batchesOf(socket).at(-1)?.lines.at(-1)?.seq === head + 60;
    await until(() => sockets.every(isWhole), { timeoutMs: 20_000 });
    const live = sockets.map((socket, n) => batchesOf(socket).slice(before[n]));
    for (const batches of live) assert.deepEqual(batches, live[0]);
    const seqs = live[0]!.flatMap(({ lines }) => lines.map(({ seq }) => seq));
    assert.deepEqual(
      seqs,
      Array.from({ length: 60 }, (_, n) => head + n + 1),
    );
    assert.equal((await count(liveFigures.executions)) - executions, live[0]!.length);
    assert.equal((await count(liveFigures.deliveries)) - deliveries, 500 * live[0]!.length);
    assert.equal((await countTimed()) - timed, live[0]!.length, 'its lag is told once a batch');
    const read = (await count(liveFigures.reads)) - reads;
    const checks = Math.ceil((Date.now() - began) / 3_000);
    assert.ok(read <= checks + 1, `${read} reads: the lines came with the messages, but for checks in between`);
    await Promise.all(sockets.map((socket) => socket.close()));
    await until(() => door.gateway.feeds.size === 0);
  });

  test('go on from a cursor that is behind, and then with the others, without a gap or a repeat', async () => {
    const job = await submitJob(door.port, 'p-shared');
    const { store } = door.gateway;
    const append = (from: number, to: number) =>
      commit(store, (tx) =>
        changeJob(tx, job, (locked) => {
          const texts = Array.from({ length: to - from + 1 }, (_, n) => `${from + n} `.padEnd(200, 'x'));
          return appendLog(
            tx,
            locked,
            1,
            texts.map((text) => ({ time: Date.now(), stream: 'STDOUT', text })),
          );
        }),
      );
    await append(1, 3_000);
    const open = async (after: string | null) => {
      const socket = await openSocket(door.port);
      socket.send({ id: '1', type: 'subscribe', payload: { query: logs, variables: { jobId: job, after } } });
      return socket;
    };
    const first = await open(null);
    await until(() => batchesOf(first).at(-1)?.caughtUp === true);
    const cursors = batchesOf(first).map(({ endCursor }) => endCursor);
    const late = await Promise.all(cursors.map(open));
    for (let n = 0; n < 40; n++) await append(3_001 + n * 10, 3_010 + n * 10);
    for (const [index, socket] of [first, ...late].entries()) {
      await until(() => batchesOf(socket).at(-1)?.lines.at(-1)?.seq === 3_400, { timeoutMs: 15_000 });
      const seqs = batchesOf(socket).flatMap(({ lines }) => lines.map(({ seq }) => seq));
      const start =
        index === 0
          ? 0
          : batchesOf(first)
              .slice(0, index)
              .flatMap(({ lines }) => lines).length;
      assert.deepEqual(
        seqs,
        Array.from({ length: 3_400 - start }, (_, n) => start + n + 1),
      );
    }
    await Promise.all([first, ...late].map((socket) => socket.close()));
  });
});

suite('subscriptions that begin at once', () => {
  let door: Door;
  before(async () => {
    door = await openDoor({ ASTRAML_RATE_LIMIT_POINTS: '0' });
    await createProject(door.port, 'p-herd');
  });
  after(() => door.close());

  /** How many selects of the database, and readings that are told of, `work` took. */
  async function counted(work: () => Promise<void>): Promise<{ selects: number; reads: number }> {
    const { db } = door.gateway.store.database;
    const { select } = db;
    let selects = 0;
    db.select = new Proxy(select, {
      apply(target, self, args): unknown {
        selects++;
        return Reflect.apply(target, self, args);
      },
    });
    const reads = await count(liveFigures.reads);
    try {
      await work();
    } finally {
      db.select = select;
    }
    return { selects, reads: (await count(liveFigures.reads)) - reads };
  }

  for (const [asks, rest] of [
    ['jobLogs(jobId: $id, last: 50)', 'lines { seq text }'],
    ['jobLogs(jobId: $id)', 'lines { seq text }'],
    ['jobEvents(jobId: $id, last: 2)', 'events { id message }'],
    ['jobMetrics(jobId: $id, last: 2)', 'windows { id count }'],
  ] as const) {
    test(`and ask the same read the same rows once: ${asks}`, async (t) => {
      const jobId = await submitJob(door.port, 'p-herd');
      await commit(door.gateway.store, (tx) =>
        changeJob(tx, jobId, async (locked) => {
          const line = { time: 1, stream: 'STDOUT' as const, text: 'x'.repeat(100) };
          for (let n = 0; n < 20; n++) await appendLog(tx, locked, 1, Array.from({ length: 100 }, () => line)); // prettier-ignore
          await addEvent(tx, locked, { type: 'CHECKPOINT', message: 'one' });
          await appendPoints(tx, locked, 1, 1, [{ name: 'm', value: 1, step: null, epoch: null, time: 1 }]);
        }),
      );
      const sockets = await Promise.all(Array.from({ length: 100 }, () => openSocket(door.port)));
      const query = `subscription ($id: ID!) { ${asks} { ${rest} caughtUp } }`;
      type Message = { payload: { data?: Record<string, { caughtUp: boolean }> } };
      const received = (socket: Socket) =>
        (socket.received as unknown as Message[]).slice(1).flatMap(({ payload }) => Object.values(payload.data ?? {}));
      const isLive = (socket: Socket) => received(socket).at(-1)?.caughtUp === true;
      const { selects, reads } = await counted(async () => {
        for (const socket of sockets) {
          socket.send({ id: '1', type: 'subscribe', payload: { query, variables: { id: jobId } } });
        }
        await until(() => sockets.every(isLive), { timeoutMs: 10_000 });
      });
      for (const socket of sockets) assert.deepEqual(received(socket), received(sockets[0]!));
      assert.ok(received(sockets[0]!).length > 0);
      t.diagnostic(`${reads} reads, ${selects} selects`);
      // Each alone would take three selects at least. Who comes in the middle of a reading waits for the next one.
      assert.ok(reads > 0 && reads < 30, `${reads} reads`);
      assert.ok(selects < 60, `${selects} selects`);
      await Promise.all(sockets.map((socket) => socket.close()));
    });
  }
});

suite('streams over many jobs', () => {
  for (const [asks, rest] of [
    ['jobEvents(projectId: "p-many")', 'events { message job { id state } }'],
    ['jobsUpdated(filter: { projectIds: ["p-many"] })', 'jobs { id state updatedAt } removedIds'],
  ] as const) {
    test(`that 100 follow are read and executed once for all: ${asks}`, async (t) => {
      const door = await openDoor({ ASTRAML_RATE_LIMIT_POINTS: '0' });
      await createProject(door.port, 'p-many');
      const reader = await createToken(door.port, { projectId: 'p-many', scopes: ['READ'] });
      const ids = [await submitJob(door.port, 'p-many'), await submitJob(door.port, 'p-many')];
      const sockets = await Promise.all(Array.from({ length: 100 }, () => openSocket(door.port, { token: reader })));
      const query = `subscription { ${asks} { ${rest} endCursor } }`;
      const nexts = (socket: Socket) => socket.received.filter(({ type }) => type === 'next');
      for (const socket of sockets) socket.send({ id: '1', type: 'subscribe', payload: { query } });
      await until(() => sockets.every((socket) => nexts(socket).length > 0), { timeoutMs: 10_000 });
      const before = sockets.map((socket) => nexts(socket).length);
      const [executions, reads] = [await count(liveFigures.executions), await count(liveFigures.reads)];
      const rounds = 20;
      for (let n = 1; n <= rounds; n++) {
        await commit(door.gateway.store, (tx) =>
          changeJob(tx, ids[n % 2]!, (locked) => addEvent(tx, locked, { type: 'CHECKPOINT', message: `round ${n}` })),
        );
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      const ended = 'mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }';
      for (const id of ids) await post(door.port, { query: ended, variables: { id } });
      const isWhole = (socket: Socket) => {
        const text = JSON.stringify(nexts(socket));
        return ids.every((id) => text.includes(`"id":"${id}","state":"CANCELLED"`));
      };
      await until(() => sockets.every(isWhole), { timeoutMs: 15_000 });
      const delivered = sockets.reduce((sum, socket, index) => sum + nexts(socket).length - before[index]!, 0);
      const [ran, read] = [
        (await count(liveFigures.executions)) - executions,
        (await count(liveFigures.reads)) - reads,
      ];
      t.diagnostic(`${delivered} deliveries, ${ran} executions, ${read} reads`);
      assert.ok(ran > 0 && ran < delivered / 20, `${ran} executions of ${delivered} deliveries`);
      assert.ok(read < delivered / 20, `${read} reads for ${delivered} deliveries`);
      await Promise.all(sockets.map((socket) => socket.close()));
      await until(() => door.gateway.feeds.size === 0);
      await door.close();
    });
  }
});

suite('what is shared', () => {
  test('are operations whose fields are all marked as neutral', () => {
    const neutral = (query: string) => isViewerNeutral(schema, parse(query));
    assert.ok(neutral('subscription { jobLogs(jobId: "1") { __typename lines { text } gaps { reason } done } }'));
    assert.ok(
      neutral('subscription { jobMetrics(jobId: "1") { windows { ...W } } } fragment W on MetricWindow { p95 }'),
    );
    assert.ok(neutral('subscription { jobEvents(jobId: "1") { events { id message } } }'));
    assert.ok(neutral('subscription { jobEvents(projectId: "1") { events { job { id } } } }'));
    assert.ok(!neutral('subscription { jobEvents(jobId: "1") { events { actor { id } } } }'));
    assert.ok(!neutral('subscription { jobEvents(jobId: "1") { events { ...E } } } fragment E on Node { id }'));
    assert.ok(neutral('subscription { jobsUpdated { removedIds jobs { id state progress { fraction } } } }'));
    assert.ok(!neutral('subscription { jobsUpdated { jobs { id submittedBy { id } } } }'));
    assert.ok(!neutral('subscription { jobsUpdated { jobs { id policy { id } } } }'));
    assert.ok(!neutral('subscription { jobUpdated(jobId: "1") { done } }'));
  });

  test('is executed without a viewer: a field that is marked but asks for it fails, and is reported', async () => {
    const extensions = { viewerNeutral: true };
    const type = GraphQLString;
    const whoAmI = { type, resolve: (_: unknown, __: unknown, { actor }: { actor: { name: string } }) => actor.name };
    const events = async function* () {
      yield { plain: 'event' };
    };
    const fields = { plain: { type }, whoAmI };
    const batch = new GraphQLObjectType({ name: 'Batch', extensions, fields });
    const subscription = new GraphQLObjectType({
      name: 'Subscription',
      fields: { events: { type: batch, extensions, subscribe: events, resolve: (event: unknown) => event } },
    });
    const reported: unknown[] = [];
    const context = {} as SharedOptions['context'];
    const shared = new SharedExecution({ context, report: (error) => reported.push(error), resultBytes });
    const query = new GraphQLObjectType({ name: 'Query', fields: { plain: { type } } });
    const document = parse('subscription { events { plain whoAmI } }');
    const viewer = { actor: { name: 'somebody' } };
    const results = await shared.subscribe({
      schema: new GraphQLSchema({ query, subscription }),
      document,
      contextValue: viewer,
    });
    assert.ok(results && isShared(results));
    const text = (await results.next())?.text ?? '';
    assert.match(text, /"plain":"event","whoAmI":null/);
    assert.match(text, /INTERNAL/);
    assert.match(String(reported), /must not be marked viewer-neutral/);
  });

  test('keeps few texts of an event: what many ask stays, what was not asked for longest is made again', async () => {
    const batch = new GraphQLObjectType({ name: 'Batch', fields: { plain: { type: GraphQLString } } });
    const event = { plain: 'event' };
    const events = async function* () {
      yield event;
    };
    const extensions = { viewerNeutral: true };
    batch.extensions = extensions;
    const resolve = () => event;
    const fields = { events: { type: batch, extensions, subscribe: events, resolve } };
    const subscription = new GraphQLObjectType({ name: 'Subscription', fields });
    const query = new GraphQLObjectType({ name: 'Query', fields: { plain: { type: GraphQLString } } });
    const sample = new GraphQLSchema({ query, subscription });
    const shared = new SharedExecution({ context: {} as SharedOptions['context'], report: assert.fail, resultBytes });
    const ask = async (name: string) => {
      const document = parse(`subscription { events { ${name}: plain } }`);
      const results = await shared.subscribe({ schema: sample, document, contextValue: {} });
      assert.ok(results && isShared(results));
      const executions = await count(liveFigures.executions);
      assert.equal((await results.next())?.text, JSON.stringify({ data: { events: { [name]: 'event' } } }));
      return (await count(liveFigures.executions)) - executions;
    };
    assert.equal(await ask('popular'), 1);
    for (let n = 0; n < 20; n++) {
      assert.equal(await ask(`odd${n}`), 1);
      assert.equal(await ask('popular'), 0);
    }
    assert.equal(await ask('odd19'), 0, 'kept still');
    assert.equal(await ask('odd0'), 1, 'forgotten');
  });
});

for (const sharing of ['true', 'false']) {
  suite(`with ASTRAML_SHARED_EXECUTION=${sharing}`, () => {
    let door: Door;
    const jobs = new Map<string, string>();
    const tokens = new Map<string, string>([['admin', adminToken]]);
    before(async () => {
      door = await openDoor({ ASTRAML_SHARED_EXECUTION: sharing });
      for (const project of ['p-one', 'p-two']) {
        await createProject(door.port, project);
        tokens.set(project, await createToken(door.port, { projectId: project, scopes: ['READ', 'WRITE'] }));
        jobs.set(`${project} 1`, await submitJob(door.port, project));
        jobs.set(`${project} 2`, await submitJob(door.port, project, tokens.get(project)));
      }
    });
    after(() => door.close());

    test('nobody sees what is of another project, job, filter or selection', async () => {
      const { store } = door.gateway;
      let round = 0;
      const selections = ['lines { text }', 'lines { t: text } endCursor', 'lines { text seq @include(if: $more) }'];
      const one = fc.record({
        viewer: fc.constantFrom('admin', 'p-one', 'p-two'),
        job: fc.constantFrom('p-one 1', 'p-one 2', 'p-two 1', 'p-two 2'),
        stream: fc.constantFrom(null, 'STDOUT' as const, 'STDERR' as const),
        selection: fc.nat(2),
        more: fc.boolean(),
      });
      const check = async (
        subscribers: {
          viewer: string;
          job: string;
          stream: 'STDOUT' | 'STDERR' | null;
          selection: number;
          more: boolean;
        }[],
      ) => {
        round++;
        const sockets = await Promise.all(
          subscribers.map(async ({ viewer, job, stream, selection, more }) => {
            const socket = await openSocket(door.port, { token: tokens.get(viewer) });
            const directive = selection === 2;
            const query = `subscription ($id: ID!, $filter: LogFilter${directive ? ', $more: Boolean!' : ''}) {
              jobLogs(jobId: $id, last: 0, filter: $filter) { ${selections[selection]} } }`;
            const filter = stream && { streams: [stream] };
            const variables = { id: jobs.get(job), filter, ...(directive ? { more } : {}) };
            socket.send({ id: '1', type: 'subscribe', payload: { query, variables } });
            await socket.next();
            return socket;
          }),
        );
        for (const [name, id] of jobs) {
          await commit(store, (tx) =>
            changeJob(tx, id, (locked) =>
              appendLog(
                tx,
                locked,
                1,
                (['STDOUT', 'STDERR'] as const).map((stream) => ({
                  time: 1,
                  stream,
                  text: `${name} ${stream} ${round}`,
                })),
              ),
            ),
          );
        }
        for (const [index, { viewer, job, stream, selection, more }] of subscribers.entries()) {
          const socket = sockets[index]!;
          if (viewer !== 'admin' && !job.startsWith(viewer)) {
            await socket.next().catch(() => {});
            assert.match(JSON.stringify(socket.received[1]), /NOT_FOUND/);
            assert.ok(!JSON.stringify(socket.received).includes(job));
            continue;
          }
          const { payload } = (await socket.next()) as unknown as {
            payload: { data: { jobLogs: Record<string, Record<string, unknown>[]> } };
          };
          const [key, keys] =
            selection === 1 ? ['t', ['t']] : ['text', selection === 2 && more ? ['text', 'seq'] : ['text']];
          const wanted = (stream ? [stream] : ['STDOUT', 'STDERR']).map((name) => `${job} ${name} ${round}`);
          const { lines = [], ...others } = payload.data.jobLogs;
          assert.deepEqual(
            lines.map((line) => line[key as string]),
            wanted,
          );
          for (const line of lines) assert.deepEqual(Object.keys(line), keys);
          assert.deepEqual(Object.keys(others), selection === 1 ? ['endCursor'] : []);
        }
        await Promise.all(sockets.map((socket) => socket.close()));
      };
      await fc.assert(fc.asyncProperty(fc.array(one, { minLength: 1, maxLength: 25 }), check), { numRuns: 12 });
    });

    test('nobody sees jobs or events of another project, or those of another token as its own', async () => {
      const { store } = door.gateway;
      let round = 0;
      const one = fc.record({
        viewer: fc.constantFrom('admin', 'p-one', 'p-two'),
        field: fc.constantFrom('jobsUpdated', 'jobEvents'),
        project: fc.constantFrom(null, 'p-one', 'p-two'),
        mine: fc.boolean(),
        alias: fc.boolean(),
      });
      type One = typeof one extends fc.Arbitrary<infer T> ? T : never;
      /** The jobs that a subscriber is to hear of; null when it is to be refused. */
      const wanted = ({ viewer, field, project, mine }: One): string[] | null => {
        if (viewer !== 'admin' && project !== null && project !== viewer) return null;
        if (field === 'jobEvents' && project === null) return null;
        const within = project ?? (viewer === 'admin' ? 'p-' : viewer);
        const own = (name: string) => (viewer === 'admin' ? name.endsWith('1') : name === `${viewer} 2`);
        const names = [...jobs.keys()].filter((name) => name.startsWith(within));
        return field === 'jobsUpdated' && mine ? names.filter(own) : names;
      };
      const operation = ({ field, project, mine, alias }: One) => {
        const id = alias ? 'key: id' : 'id';
        if (field === 'jobEvents') {
          const query = `subscription ($p: ID) { jobEvents(projectId: $p, last: 0) { events { message job { ${id} } } } }`;
          return { query, variables: { p: project } };
        }
        const query = `subscription ($f: JobFilter) { jobsUpdated(filter: $f, last: 0) { jobs { ${id} } removedIds } }`;
        const filter = { ...(project ? { projectIds: [project] } : {}), ...(mine ? { submittedByMe: true } : {}) };
        return { query, variables: { f: filter } };
      };
      const check = async (subscribers: One[]) => {
        round++;
        const sockets = await Promise.all(
          subscribers.map(async (subscriber) => {
            const socket = await openSocket(door.port, { token: tokens.get(subscriber.viewer) });
            socket.send({ id: '1', type: 'subscribe', payload: operation(subscriber) });
            await socket.next();
            return socket;
          }),
        );
        for (const [name, id] of jobs) {
          await commit(store, (tx) =>
            changeJob(tx, id, (locked) => addEvent(tx, locked, { type: 'CHECKPOINT', message: `${name} ${round}` })),
          );
        }
        type Row = { id?: string; key?: string };
        type BatchRows = { jobs?: Row[]; removedIds?: string[]; events?: { message: string; job: Row }[] };
        for (const [index, subscriber] of subscribers.entries()) {
          const socket = sockets[index]!;
          const names = wanted(subscriber);
          if (names === null) {
            await until(() => /NOT_FOUND|BAD_USER_INPUT/.test(JSON.stringify(socket.received)));
            assert.doesNotMatch(JSON.stringify(socket.received), /job_|CHECKPOINT|"data":\{/);
            continue;
          }
          const ids = new Set(names.map((name) => jobs.get(name)));
          const received = () =>
            (socket.received as { type: string; payload: { data: Record<string, BatchRows>; errors?: unknown } }[])
              .filter(({ type }) => type === 'next')
              .flatMap(({ payload }) => {
                assert.equal(payload.errors, undefined);
                return Object.values(payload.data);
              });
          const rows = () => received().flatMap(({ jobs: changed = [], events = [] }) => [...changed, ...events.map(({ job }) => job)]); // prettier-ignore
          const seen = () => new Set(rows().map(({ id, key }) => (subscriber.alias ? key : id)));
          await until(() => seen().size >= ids.size, { timeoutMs: 10_000 });
          assert.deepEqual(seen(), ids);
          assert.deepEqual(received().flatMap(({ removedIds = [] }) => removedIds), []); // prettier-ignore
          if (subscriber.field === 'jobsUpdated') continue;
          const messages = received().flatMap(({ events = [] }) => events.map(({ message }) => message));
          assert.deepEqual(messages, names.map((name) => `${name} ${round}`)); // prettier-ignore
        }
        await Promise.all(sockets.map((socket) => socket.close()));
      };
      await fc.assert(fc.asyncProperty(fc.array(one, { minLength: 1, maxLength: 25 }), check), { numRuns: 10 });
    });

    test('a stream over SSE and over a websocket says the same, to its end', async () => {
      await createProject(door.port, `p-end`);
      const id = await submitJob(door.port, 'p-end');
      const { store } = door.gateway;
      await commit(store, (tx) =>
        changeJob(tx, id, (locked) => appendLog(tx, locked, 1, [{ time: 1, stream: 'STDOUT', text: 'é\u2028"\\' }])),
      );
      const socket = await openSocket(door.port);
      socket.send({ id: 'a"b', type: 'subscribe', payload: { query: logs, variables: { jobId: id } } });
      const [next] = [(await socket.next()) as Next];
      assert.equal(next.id, 'a"b');
      const streaming = fetch(`${door.url}/graphql`, {
        method: 'POST',
        headers: { ...jsonType, ...bearer(adminToken), accept: 'text/event-stream' },
        body: JSON.stringify({ query: logs, variables: { jobId: id } }),
      }).then((answer) => answer.text());
      await until(() => door.gateway.feeds.size === 1);
      const cancel = `mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }`;
      await new Promise((resolve) => setTimeout(resolve, 300));
      await fetch(`${door.url}/graphql`, {
        method: 'POST',
        headers: { ...jsonType, ...bearer(adminToken) },
        body: JSON.stringify({ query: cancel, variables: { id } }),
      });
      const text = await streaming;
      const results = text.split('\n').filter((line) => line.startsWith('data: '));
      const overSse = results.map((line) => JSON.parse(line.slice('data: '.length)) as Next['payload']);
      await until(() => socket.received.at(-1)?.type === 'complete');
      assert.match(text, /event: complete\ndata:\n\n$/);
      assert.deepEqual(
        overSse.map(({ data }) => data.jobLogs),
        batchesOf(socket),
      );
      assert.equal(batchesOf(socket).at(-1)?.done, true);
      await socket.close();
    });
  });
}
