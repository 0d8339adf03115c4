// The bystander: an ordinary job that must reach SUCCEEDED with its lines in order. It runs once in
// a quiet installation and once beside a flood of other work; the delays of its lines in both are
// printed.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { TestContext } from 'node:test';
import { type Client, createClient } from '../../src/client/client.ts';
import type { Installation } from './installation.ts';
import { createProject, script } from './stack.ts';

const lines = 200;
/** Milliseconds until a run fails: a quiet one takes 6 s, on a busy machine ten times as long. */
const patienceMs = 90_000;

/** Prints its line number and the time every 20 ms. */
const talker = script(`
  for (let n = 1; n <= ${lines}; n++) {
    console.log(n + ' ' + Date.now());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
`);

/** Work that runs beside the bystander. */
export type Flood = {
  /** Starts the flood; the bystander waits until it resolves. */
  begin?(): Promise<unknown>;
  /** Runs until `signal` is aborted; a rejection fails the test. */
  run?(signal: AbortSignal): Promise<unknown>;
};

/**
 * Runs the bystander twice, and fails unless the run beside the flood is served like the quiet one.
 */
export async function compareBystanders(t: TestContext, installation: Installation, flood: Flood): Promise<void> {
  const project = `p-bystander-${randomUUID().slice(0, 8)}`;
  await createProject(installation.first, project);
  const quiet = await runBystander(installation, project, AbortSignal.timeout(patienceMs));
  await flood.begin?.();
  const ending = new AbortController();
  const failing = new AbortController();
  const flooding = Promise.resolve(flood.run?.(ending.signal)).catch((cause: unknown) => {
    failing.abort(new Error(`the flood met ${String(cause)}\n${lastWords(installation)}`, { cause }));
  });
  const probing = probe(installation, ending.signal);
  await installation.loopDelay();
  try {
    const signal = AbortSignal.any([AbortSignal.timeout(patienceMs), failing.signal]);
    const beside = await runBystander(installation, project, signal).catch((error: unknown) => {
      throw failing.signal.aborted ? failing.signal.reason : error;
    });
    t.diagnostic(
      `${installation.kind}: line to client p50 ${quantile(beside, 0.5)} ms, p99 ${quantile(beside, 0.99)} ms; ` +
        `without the flood ${quantile(quiet, 0.5)} ms, ${quantile(quiet, 0.99)} ms`,
    );
  } finally {
    ending.abort();
    // null when the process has died
    const delay = await installation.loopDelay().catch(() => null);
    const loop = delay
      ? `; its event loop was late by p99 ${Math.round(delay.p99)} ms, ${Math.round(delay.max)} ms at most`
      : '';
    t.diagnostic(`${installation.kind}: the slowest /livez took ${await probing} ms${loop}`);
  }
  await flooding;
  if (failing.signal.aborted) throw failing.signal.reason;
}

/**
 * Returns the last 20 lines that gateways and runners printed, where a process that died gives the
 * reason.
 */
function lastWords(installation: Installation): string {
  const lines = installation.output().split('\n').slice(-20);
  return ['They printed last:', ...lines.map((line) => line.slice(0, 300))].join('\n');
}

type Batch = {
  lines: { stream: string; text: string }[];
  gaps: { fromSeq: number; toSeq: number; reason: string }[];
};

const follow = `subscription ($jobId: ID!, $after: String) {
  jobLogs(jobId: $jobId, after: $after) {
    lines { stream text } gaps { fromSeq toSeq reason } endCursor done
  }
}`;

/**
 * Runs the bystander and returns the milliseconds from the printing of each line to its arrival. An
 * error says how far the bystander came.
 */
async function runBystander(installation: Installation, project: string, signal: AbortSignal): Promise<number[]> {
  const { urls, token } = installation;
  const [first, last] = [urls[0], urls.at(-1)].map((url = '') =>
    createClient({ url, token, retryForMs: patienceMs }),
  ) as [Client, Client];
  const numbers: number[] = [];
  const delays: number[] = [];
  let id: string | undefined;
  try {
    id = await submitUrgent(first, project, signal);
    for await (const batch of last.follow<Batch>(follow, { jobId: id }, { signal })) {
      const now = Date.now();
      assert.deepEqual(batch.gaps, [], 'the bystander lost lines');
      for (const { stream, text } of batch.lines) {
        if (stream !== 'STDOUT') continue;
        const [number = 0, printedAt = 0] = text.split(' ').map(Number);
        numbers.push(number);
        delays.push(now - printedAt);
      }
    }
    signal.throwIfAborted();
    const expected = Array.from({ length: lines }, (_, index) => index + 1);
    assert.deepEqual(numbers, expected, 'the bystander’s lines, in order, each once');
    assert.equal(await stateOf(first, id, signal), 'SUCCEEDED in 1 attempt');
    return delays;
  } catch (cause) {
    const unknown = () => 'in a state that no gateway tells';
    const state = id ? await stateOf(first, id, AbortSignal.timeout(5_000)).catch(unknown) : 'not accepted';
    const far = `after ${numbers.length} of ${lines} lines; it is ${state}`;
    throw new Error(`the bystander was let down ${far}: ${String(cause)}\n${lastWords(installation)}`, { cause });
  }
}

/**
 * Submits the job with priority 100, ahead of the jobs of the flood, because the queue is not under
 * test.
 */
async function submitUrgent(client: Client, projectId: string, signal: AbortSignal): Promise<string> {
  const spec = {
    ...{ projectId, model: 'm', dataset: 'd', command: talker, priority: 100 },
    resources: { gpus: 0 },
  };
  const { submitJob } = await client.request<{ submitJob: { job?: { id: string }; message?: string } }>(
    `mutation ($input: SubmitJobInput!) {
      submitJob(input: $input) { ... on SubmitJobPayload { job { id } } ... on UserError { message } }
    }`,
    { input: { spec, idempotencyKey: randomUUID() } },
    { signal, repeatable: true },
  );
  assert.ok(submitJob.job, submitJob.message);
  return submitJob.job.id;
}

async function stateOf(client: Client, id: string, signal: AbortSignal): Promise<string> {
  const { job } = await client.request<{ job: { state: string; attempts: unknown[] } }>(
    'query ($id: ID!) { job(id: $id) { state attempts { number } } }',
    { id },
    { signal, repeatable: true },
  );
  return `${job.state} in ${job.attempts.length} attempt${job.attempts.length === 1 ? '' : 's'}`;
}

/**
 * Sends one health request after the other to every gateway until `signal`; returns the longest
 * wait in milliseconds.
 */
async function probe({ urls }: Installation, signal: AbortSignal): Promise<number> {
  const longest = await Promise.all(
    urls.map(async (url) => {
      let longestMs = 0;
      while (!signal.aborted) {
        const askedAt = performance.now();
        const answered = fetch(`${url}/livez`, { signal }).then((answer) => answer.text());
        await Promise.all([answered, new Promise((resolve) => setTimeout(resolve, 50))]).catch(() => {});
        longestMs = Math.max(longestMs, performance.now() - askedAt);
      }
      return longestMs;
    }),
  );
  return Math.round(Math.max(...longest));
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
