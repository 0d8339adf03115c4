// The main job from end to end, in one process: submit → run → lines and windows live → done, over WebSocket and SSE,
// with the stock clients' protocols.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { createClient as createSocketClient } from 'graphql-ws';
import { expectNoLeaks } from '../support/leaks.ts';
import { createProject, followLog, jobState, script, type Stack, startStack, submit } from '../support/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
  await createProject(stack.client, 'p-path');
});
after(async () => {
  await stack.stop();
  await expectNoLeaks();
});

/** Prints lines and metrics for a while, as a training script does. */
const talker = (lines: number, pauseMs: number) =>
  script(`
    const report = (value) => console.log('::astraml ' + JSON.stringify(value));
    for (let step = 1; step <= ${lines}; step++) {
      console.log('line ' + step);
      report({ step, epoch: step / 10, 'train/loss': 1 / step, nested: { value: step } });
      report({ type: 'progress', step, total_steps: ${lines} });
      if (${pauseMs}) await new Promise((resolve) => setTimeout(resolve, ${pauseMs}));
    }
    console.error('bye');
  `);

type Batch = {
  lines: { seq: number; text: string; stream: string }[];
  endCursor: string;
  caughtUp: boolean;
  done: boolean;
};
const logs = `subscription ($jobId: ID!, $after: String, $last: Int) {
  jobLogs(jobId: $jobId, after: $after, last: $last) { lines { seq text stream } endCursor caughtUp done }
}`;

/** Server-Sent Events of a subscription, until they end or `enough` says so. */
async function events<Event>(query: string, variables: object, enough: (all: Event[]) => boolean): Promise<Event[]> {
  const ending = new AbortController();
  const response = await fetch(`${stack.url}/graphql`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'text/event-stream',
      authorization: `Bearer ${stack.token}`,
    },
    body: JSON.stringify({ query, variables }),
    signal: ending.signal,
  });
  assert.equal(response.status, 200);
  const all: Event[] = [];
  let text = '';
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += Buffer.from(chunk).toString();
    const parts = text.split('\n\n');
    text = parts.pop() ?? '';
    for (const part of parts) {
      const data = /^data: (.*)$/m.exec(part)?.[1];
      if (!part.startsWith('event: next') || !data) continue;
      const result = JSON.parse(data) as { data?: Record<string, Event>; errors?: unknown };
      assert.equal(result.errors, undefined);
      all.push(Object.values(result.data ?? {})[0] as Event);
    }
    if (enough(all)) ending.abort();
    if (ending.signal.aborted) break;
  }
  return all;
}

suite('a job', () => {
  test('is followed from its submission to its end over WebSocket and SSE alike', async () => {
    const { id, state } = await submit(stack.client, 'p-path', { command: talker(20, 20) });
    assert.equal(state, 'QUEUED');
    const [overSocket, overEvents] = await Promise.all([
      followLog(stack.client, id),
      events<Batch>(logs, { jobId: id }, () => false),
    ]);
    const wanted = [...Array.from({ length: 20 }, (_, n) => `line ${n + 1}`), 'bye'];
    const printed = (lines: { stream: string; text: string }[]) =>
      lines.filter(({ stream }) => stream !== 'SYSTEM').map(({ text }) => text);
    assert.deepEqual(printed(overSocket).toSorted(), wanted.toSorted());
    assert.deepEqual(
      overSocket.map(({ seq }) => seq),
      overSocket.map((_, n) => n + 1),
    );
    assert.match(overSocket[0]?.text ?? '', /virtual slot 0 \(this machine has no GPU/);
    assert.deepEqual(printed(overEvents.flatMap((batch) => batch.lines)), printed(overSocket));
    assert.equal(overEvents.at(-1)?.done, true);
    assert.deepEqual((await jobState(stack.client, id)).state, 'SUCCEEDED');
  });

  test('says what happens to it at once and at every change, until it ends', async () => {
    const { id } = await submit(stack.client, 'p-path', { command: talker(5, 50) });
    const query = `subscription ($jobId: ID!) {
      jobUpdated(jobId: $jobId) { job { state progress { step totalSteps fraction } currentAttempt { number runner { name } } } done }
    }`;
    type Update = {
      job: { state: string; progress: { step: number; totalSteps: number; fraction: number } | null };
      done: boolean;
    };
    const seen: Update[] = [];
    for await (const update of stack.client.follow<Update>(query, { jobId: id })) seen.push(update);
    const states = [...new Set(seen.map(({ job }) => job.state))];
    // How far it is when the stream begins, and whether STARTING is over before anybody looks, is up to the runner.
    assert.deepEqual(
      states.filter((state) => state !== 'QUEUED' && state !== 'STARTING'),
      ['RUNNING', 'SUCCEEDED'],
    );
    assert.deepEqual(seen.at(-1)?.job.progress, { step: 5, totalSteps: 5, fraction: 1 });
    assert.ok(seen.slice(0, -1).every(({ done }) => !done));
    assert.equal(seen.at(-1)?.done, true);
  });

  test('has windows that fill with rising revisions, become final, and sum up what was sent', async () => {
    const { id } = await submit(stack.client, 'p-path', { command: talker(40, 60), metrics: { windowSeconds: 1 } });
    const query = `subscription ($jobId: ID!, $after: String) {
      jobMetrics(jobId: $jobId, names: ["train/*", "nested/value"], after: $after) {
        windows { id name start revision count sum min max first last firstStep lastStep provisional windowSeconds }
        endCursor caughtUp done
      }
    }`;
    type Window = {
      id: string;
      name: string;
      revision: number;
      count: number;
      sum: number;
      min: number;
      max: number;
      provisional: boolean;
      windowSeconds: number;
    };
    const newest = new Map<string, Window>();
    const batches: { windows: Window[]; done: boolean }[] = [];
    for await (const batch of stack.client.follow<{ windows: Window[]; done: boolean }>(query, { jobId: id })) {
      batches.push(batch);
      for (const window of batch.windows) {
        assert.ok(window.revision > (newest.get(window.id)?.revision ?? 0), 'a window that is sent again is newer');
        newest.set(window.id, window);
      }
    }
    assert.deepEqual(batches[0]?.windows, [], 'the first batch came at once, before there was anything');
    const all = [...newest.values()];
    assert.ok(all.every(({ provisional, windowSeconds }) => !provisional && windowSeconds === 1));
    const total = (name: string, value: (window: Window) => number) =>
      all.filter((window) => window.name === name).reduce((sum, window) => sum + value(window), 0);
    assert.equal(
      total('train/loss', ({ count }) => count),
      40,
    );
    assert.equal(
      total('nested/value', ({ sum }) => sum),
      (40 * 41) / 2,
    );
    assert.ok(new Set(all.map(({ id: window }) => window)).size >= 4, 'more than one window of each metric');
    const { job } = await stack.client.request<{
      job: { metrics: { name: string; count: number; last: { step: number; value: number } }[] };
    }>(
      'query ($id: ID!) { job(id: $id) { metrics(names: ["train/*", "nested/*"]) { name count last { step value } min { value } } } }',
      { id },
    );
    assert.deepEqual(
      job.metrics.map(({ name, count, last }) => [name, count, last.step, last.value]),
      [
        ['nested/value', 40, 40, 40],
        ['train/loss', 40, 40, 1 / 40],
      ],
    );
  });
});

suite('a log', () => {
  let id: string;
  before(async () => {
    ({ id } = await submit(stack.client, 'p-path', { command: talker(2_000, 0) }));
    await followLog(stack.client, id);
  });

  type Page = {
    nodes: { seq: number }[];
    pageInfo: { endCursor: string; startCursor: string; hasNextPage: boolean; hasPreviousPage: boolean };
  };
  const page = async (args: string): Promise<Page> => {
    const { job } = await stack.client.request<{ job: { logs: Page } }>(
      `query ($id: ID!) { job(id: $id) { logs(${args}) { nodes { seq } pageInfo { endCursor startCursor hasNextPage hasPreviousPage } } } }`,
      { id },
    );
    return job.logs;
  };

  test('in pages from either end holds every line once', async () => {
    const total = 2_002; // a line each, one of the runner, one on stderr
    const forward: number[] = [];
    for (let after = ''; ;) {
      const { nodes, pageInfo } = await page(`first: 700${after && `, after: "${after}"`}`);
      forward.push(...nodes.map(({ seq }) => seq));
      if (!pageInfo.hasNextPage) break;
      after = pageInfo.endCursor;
    }
    const backward: number[] = [];
    for (let before = ''; ;) {
      const { nodes, pageInfo } = await page(`last: 700${before && `, before: "${before}"`}`);
      backward.unshift(...nodes.map(({ seq }) => seq));
      if (!pageInfo.hasPreviousPage) break;
      before = pageInfo.startCursor;
    }
    const wanted = Array.from({ length: total }, (_, n) => n + 1);
    assert.deepEqual(forward, wanted);
    assert.deepEqual(backward, wanted);
  });

  test('goes on in a subscription where a page ended, without a gap or a repeat', async () => {
    for (const args of ['first: 100', 'last: 100']) {
      const { nodes, pageInfo } = await page(args);
      const batches = await events<Batch>(logs, { jobId: id, after: pageInfo.endCursor }, () => false);
      const rest = batches.flatMap(({ lines }) => lines.map(({ seq }) => seq));
      const start = nodes[0]?.seq ?? 0;
      assert.deepEqual(
        [...nodes.map(({ seq }) => seq), ...rest],
        Array.from({ length: 2_003 - start }, (_, n) => start + n),
      );
    }
  });

  test('can start any number of lines before the end, or at it', async () => {
    const tail = async (last: number) =>
      (await events<Batch>(logs, { jobId: id, last }, () => false)).flatMap(({ lines }) => lines.map(({ seq }) => seq));
    assert.deepEqual(await tail(3), [2_000, 2_001, 2_002]);
    assert.deepEqual(await tail(0), []);
  });

  test('is searched literally, ignoring case, and its cursor passes what did not match', async () => {
    const { job } = await stack.client.request<{ job: { logs: { nodes: { text: string }[] } } }>(
      `query ($id: ID!) { job(id: $id) { logs(first: 1000, filter: { search: "LINE 199" }) { nodes { text } } } }`,
      { id },
    );
    assert.deepEqual(
      job.logs.nodes.map(({ text }) => text),
      ['line 199', ...Array.from({ length: 10 }, (_, n) => `line 199${n}`)],
    );
    const streams = await stack.client.request<{ job: { logs: { nodes: { text: string }[] } } }>(
      `query ($id: ID!) { job(id: $id) { logs(last: 10, filter: { streams: [STDERR] }) { nodes { text } } } }`,
      { id },
    );
    assert.deepEqual(streams.job.logs.nodes, [{ text: 'bye' }]);
  });
});

test('the stock graphql-ws client resumes by its cursor over cut sockets, with 0 lost and 0 repeated', async () => {
  const { id } = await submit(stack.client, 'p-path', { command: talker(300, 10) });
  let cursor: string | undefined;
  const sockets = new Set<WebSocket>();
  class Tracked extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols);
      sockets.add(this);
      this.addEventListener('close', () => sockets.delete(this));
    }
  }
  const client = createSocketClient({
    url: `${stack.url.replace('http', 'ws')}/graphql`,
    webSocketImpl: Tracked,
    connectionParams: { Authorization: `Bearer ${stack.token}` },
    retryAttempts: Infinity,
    shouldRetry: () => true,
    retryWait: () => new Promise((resolve) => setTimeout(resolve, 5)),
  });
  const cuts = setInterval(() => sockets.forEach((socket) => socket.close(4000, 'cut')), 150);
  const variables = {
    jobId: id,
    get after() {
      return cursor;
    },
  };
  const seen: number[] = [];
  try {
    for await (const { data } of client.iterate<{ jobLogs: Batch }>({ query: logs, variables })) {
      if (!data) continue;
      seen.push(...data.jobLogs.lines.map(({ seq }) => seq));
      cursor = data.jobLogs.endCursor;
      if (data.jobLogs.done) break;
    }
  } finally {
    clearInterval(cuts);
    await client.dispose();
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 302 }, (_, n) => n + 1),
  );
});

test('a line is on a subscriber’s screen soon after it was printed: median and p99 at 1,000 lines/s', async () => {
  const { id } = await submit(stack.client, 'p-path', {
    command: script(`
      const begin = performance.now();
      for (let n = 0; n < 5000; ) {
        for (; n < Math.min(5000, performance.now() - begin); n++) console.log(Date.now());
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    `),
  });
  const delays: number[] = [];
  const query = logs.replace('lines { seq text stream }', 'lines { text stream }');
  for await (const { lines } of stack.client.follow<Batch>(query, { jobId: id })) {
    const now = Date.now();
    for (const { text, stream } of lines) if (stream === 'STDOUT') delays.push(now - Number(text));
  }
  assert.equal(delays.length, 5_000);
  delays.sort((a, b) => a - b);
  const at = (share: number) => delays[Math.floor(share * (delays.length - 1))];
  console.log(`printed → WebSocket subscriber, embedded, 1,000 lines/s: median ${at(0.5)} ms, p99 ${at(0.99)} ms`);
});
