// Windows of metrics for many: one execution for all who ask the same, the newest revision of each window and no queue of
// old ones, however often they change.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { liveFigures } from '../../src/metrics-registry.ts';
import {
  adminToken,
  bearer,
  createProject,
  type Door,
  jsonType,
  openDoor,
  openSocket,
  post,
  type Socket,
  submitJob,
} from '../support/door.ts';
import { changeJob } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { appendPoints } from '../../src/metric/append.ts';
import { until } from '../support/until.ts';

const query = `subscription ($jobId: ID!, $after: String) {
  jobMetrics(jobId: $jobId, after: $after) { windows { id revision count } endCursor caughtUp done }
}`;
type Batch = { windows: { id: string; revision: number; count: number }[]; endCursor: string; done: boolean };
type Next = { type: string; payload: { data: { jobMetrics: Batch } } };

const batchesOf = (socket: Socket) =>
  (socket.received as Next[]).filter(({ type }) => type === 'next').map(({ payload }) => payload.data.jobMetrics);
const executed = async () => (await liveFigures.executions.get()).values[0]?.value ?? 0;

for (const sharing of ['true', 'false']) {
  suite(`jobMetrics with ASTRAML_SHARED_EXECUTION=${sharing}`, () => {
    let door: Door;
    before(async () => {
      door = await openDoor({ ASTRAML_SHARED_EXECUTION: sharing, LOG_LEVEL: 'silent' });
      await createProject(door.port, 'p-windows');
    });
    after(async () => {
      await door.close();
      if (sharing === 'false') await expectNoLeaks();
    });

    test('gives 100 identical subscribers the same revisions, conflated, and one who comes late the newest only', async () => {
      const { port, gateway } = door;
      const jobId = await submitJob(port, 'p-windows');
      const time = Date.now();
      let record = 0;
      const points = () =>
        commit(gateway.store, (tx) =>
          changeJob(tx, jobId, (locked) => {
            const values = ['train/loss', 'eval/accuracy'].map((name) => ({
              name,
              value: record,
              step: null,
              epoch: null,
              time,
            }));
            return appendPoints(tx, locked, 1, ++record, values);
          }),
        );
      const open = async (after: string | null = null) => {
        const socket = await openSocket(port);
        socket.send({ id: '1', type: 'subscribe', payload: { query, variables: { jobId, after } } });
        await until(() => batchesOf(socket).length > 0, { timeoutMs: 10_000 });
        return socket;
      };
      await points();
      const sockets = await Promise.all(Array.from({ length: 100 }, () => open()));
      const streaming = fetch(`${door.url}/graphql`, {
        method: 'POST',
        headers: { ...jsonType, ...bearer(adminToken), accept: 'text/event-stream' },
        body: JSON.stringify({ query, variables: { jobId } }),
      }).then((answer) => answer.text());
      const executions = await executed();
      const before = sockets.map((socket) => batchesOf(socket).length);
      const rounds = 60;
      const began = performance.now();
      while (record < rounds) {
        await points();
        await sleep(30);
      }
      const newest = (socket: Socket) =>
        Math.max(...batchesOf(socket).flatMap(({ windows }) => windows.map(({ count }) => count)));
      await until(() => sockets.every((socket) => newest(socket) === rounds), { timeoutMs: 15_000 });
      const seconds = (performance.now() - began) / 1000;
      for (const [index, socket] of sockets.entries()) {
        const seen = new Map<string, number>();
        for (const { id, revision } of batchesOf(socket).flatMap(({ windows }) => windows)) {
          assert.ok(revision > (seen.get(id) ?? 0), 'revisions only grow');
          seen.set(id, revision);
        }
        assert.equal(seen.size, 2);
        // One a second once it is live; a busy machine adds some before. Not conflated, there would be one a round.
        const most = Math.ceil(seconds) + rounds / 4;
        const batches = batchesOf(socket).length - before[index]!;
        assert.ok(batches <= most, `${batches} batches in ${seconds} s: no queue of old ones`);
        assert.deepEqual(batchesOf(socket).at(-1)?.windows, batchesOf(sockets[0]!).at(-1)?.windows);
      }
      const late = await open(batchesOf(sockets[0]!)[0]!.endCursor);
      assert.deepEqual(
        batchesOf(late)[0]?.windows.map(({ count }) => count),
        [rounds, rounds],
        'each window once, as it is now',
      );
      const delivered = sockets.reduce((sum, socket, index) => sum + batchesOf(socket).length - before[index]!, 0);
      const ran = (await executed()) - executions;
      if (sharing === 'true') assert.ok(ran < delivered / 5, `${ran} executions for ${delivered} batches`);
      else assert.equal(ran, 0);
      await post(port, {
        query: 'mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }',
        variables: { id: jobId },
      });
      await until(() => sockets.every((socket) => batchesOf(socket).at(-1)?.done === true), { timeoutMs: 15_000 });
      assert.match(await streaming, /"done":true/);
      await Promise.all([...sockets, late].map((socket) => socket.close()));
    });
  });
}
