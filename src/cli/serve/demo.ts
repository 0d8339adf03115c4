// `astraml demo`: submits, runs and follows one job in one process and a temporary folder. Prints
// each step; exits with 0 when the job SUCCEEDED.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { styleText } from 'node:util';
import type { Client } from '../../client/client.ts';
import { readConfig } from '../../config.ts';
import { newTokenText } from '../../project/token.ts';
import { toInput } from '../../spec/input.ts';
import { createExampleProject, startLocal, watchAddress } from './local.ts';

/** The job of the document for which the product was made, word for word. */
const seedJob = {
  project_id: 'p-demo',
  dataset: 's3://bucket/dataset',
  model: 'bert-base',
  hyperparams: { batch_size: 32, lr: 3e-5, epochs: 5, early_stopping: { patience: 5 } },
  resources: { gpus: 1 },
};

type Resolved = { path: string; value: unknown; source: string };
type JobNow = {
  id: string;
  number: number;
  name: string;
  state: string;
  stateReason: { message: string; hint: string | null } | null;
  resolved: Resolved[];
};
type Line = { time: string; stream: string; text: string };
type Window = {
  id: string;
  name: string;
  start: string;
  end: string;
  revision: number;
  count: number;
  min: number | null;
  max: number | null;
  mean: number | null;
  provisional: boolean;
};

const say = (text = '') => process.stdout.write(`${text}\n`);
const bold = (text: string) => styleText('bold', text);
const dim = (text: string) => styleText('dim', text);

/** Runs the demo; resolves with the exit code. */
export async function runDemo(): Promise<number> {
  const dataDir = mkdtempSync(join(tmpdir(), 'astraml-demo-'));
  const token = newTokenText();
  const env = { ...process.env, ASTRAML_DATA_DIR: dataDir, PORT: '0', HOST: '127.0.0.1', DATABASE_URL: undefined };
  const stopped = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopped.abort());
  try {
    say(bold('1. Start') + dim(`  embedded Postgres, in-process bus, gateway and runner, in ${dataDir}`));
    const local = await startLocal({ config: readConfig(env), token, runnerToken: newTokenText(), graceMs: 3_000 });
    try {
      say(`   ${local.gateway.url}/graphql#token=${token} ${dim('(open it while the job runs)')}`);
      return await playThrough(local.client, token, stopped.signal);
    } finally {
      say(dim('Stopping.'));
      await local.stop();
    }
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function playThrough(client: Client, token: string, signal: AbortSignal): Promise<number> {
  say(
    `\n${bold('2. Create project p-demo')}${dim('  its command: the example trainer, which trains on handwritten digits')}`,
  );
  await createExampleProject(client, 'p-demo');

  say(`\n${bold('3. Submit')}${dim('  over GraphQL HTTP')}\n${indent(JSON.stringify(seedJob, null, 2))}`);
  const job = await submit(client);
  say(
    `   accepted as ${bold(job.id)}, p-demo/${job.number} "${job.name}"\n   effective values and where they came from:`,
  );
  const width = Math.max(...job.resolved.map(({ path }) => path.length));
  for (const { path, value, source } of job.resolved) {
    if (path !== 'command') say(`     ${path.padEnd(width)}  ${JSON.stringify(value).padEnd(22)}  ${dim(source)}`);
  }

  say(`\n${bold('4. Watch')}${dim('  over a WebSocket: log lines as they come, 30 s windows as they fill and close')}`);
  say(`   in a browser: ${watchAddress(client.url, job.id, token)}`);
  await Promise.all([
    watchState(client, job.id, signal),
    watchLog(client, job.id, signal),
    watchMetrics(client, job.id, signal),
  ]);
  if (signal.aborted) return 130;
  return tellEnd(client, job.id);
}

async function submit(client: Client): Promise<JobNow> {
  const { submitJob } = await client.request<{ submitJob: { job?: JobNow; message?: string } }>(
    `mutation ($input: SubmitJobInput!) {
      submitJob(input: $input) {
        ... on SubmitJobPayload {
          job { id number name state stateReason { message hint } resolved { path value source } }
        }
        ... on UserError { message }
      }
    }`,
    { input: { spec: toInput(seedJob), idempotencyKey: 'demo' } },
    { repeatable: true },
  );
  if (!submitJob.job) throw new Error(submitJob.message);
  return submitJob.job;
}

async function watchState(client: Client, jobId: string, signal: AbortSignal): Promise<void> {
  const query = `subscription ($jobId: ID!) {
    jobUpdated(jobId: $jobId) { job { state stateReason { message } progress { fraction eta } } done }
  }`;
  type Update = { job: { state: string; progress: { fraction: number | null; eta: string | null } | null } };
  let state = '';
  let tenth = 0;
  for await (const { job } of client.follow<Update>(query, { jobId }, { signal })) {
    if (job.state !== state) say(`${styleText('cyan', 'state ')} ${bold(job.state)}`);
    ({ state } = job);
    const fraction = job.progress?.fraction ?? 0;
    if (Math.floor(fraction * 10) <= tenth) continue;
    tenth = Math.floor(fraction * 10);
    const remainingSeconds = job.progress?.eta ? Math.max(0, (Date.parse(job.progress.eta) - Date.now()) / 1000) : null;
    const bar = '█'.repeat(tenth * 2).padEnd(20, '░');
    say(
      `${styleText('cyan', 'state ')} ${bar} ${tenth * 10} %${remainingSeconds === null ? '' : `, about ${Math.round(remainingSeconds)} s left`}`,
    );
  }
}

async function watchLog(client: Client, jobId: string, signal: AbortSignal): Promise<void> {
  const query = `subscription ($jobId: ID!, $after: String) {
    jobLogs(jobId: $jobId, after: $after) { lines { time stream text } endCursor done }
  }`;
  for await (const { lines } of client.follow<{ lines: Line[] }>(query, { jobId }, { signal })) {
    for (const { stream, text } of lines) {
      const shown = text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '�'); // eslint-disable-line no-control-regex
      say(`${styleText('green', 'log   ')} ${stream === 'SYSTEM' ? dim(shown) : shown}`);
    }
  }
}

async function watchMetrics(client: Client, jobId: string, signal: AbortSignal): Promise<void> {
  const query = `subscription ($jobId: ID!, $after: String) {
    jobMetrics(jobId: $jobId, after: $after) {
      windows { id name start end revision count min max mean provisional } endCursor done
    }
  }`;
  const shownAt = new Map<string, number>();
  for await (const { windows } of client.follow<{ windows: Window[] }>(query, { jobId }, { signal })) {
    for (const window of windows) {
      // Prints a filling window every 5 s at most, and once more when it closes.
      const due = Date.now() - (shownAt.get(window.id) ?? 0) >= 5_000;
      if (window.provisional && !due) continue;
      shownAt.set(window.id, Date.now());
      say(`${styleText('magenta', 'window')} ${describe(window)}`);
    }
  }
}

function describe({ name, start, end, count, min, max, mean, provisional, revision }: Window): string {
  const number = (value: number | null) => (value === null ? '–' : value.toPrecision(4));
  const span = `${start.slice(11, 19)}–${end.slice(11, 19)}`;
  const values = `mean ${number(mean)}  min ${number(min)}  max ${number(max)}`;
  const state = provisional ? dim(`filling, revision ${revision}`) : bold('closed');
  return `${span}  ${name.padEnd(13)} ${String(count).padStart(3)} points  ${values}  ${state}`;
}

async function tellEnd(client: Client, jobId: string): Promise<number> {
  const { job } = await client.request<{ job: JobNow & { logs: { nodes: { seq: number }[] } } }>(
    `query ($id: ID!) {
      job(id: $id) { id number name state stateReason { message hint } logs(last: 1) { nodes { seq } } }
    }`,
    { id: jobId },
    { repeatable: true },
  );
  const good = job.state === 'SUCCEEDED';
  const lines = job.logs.nodes[0]?.seq ?? 0;
  say(
    `\n${bold('5. Done')}  ${styleText(good ? 'green' : 'red', `${good ? '✓' : '✗'} ${job.state}`)}  ${job.stateReason?.message ?? ''} ${dim(`${lines} log lines kept`)}`,
  );
  return good ? 0 : 1;
}

function indent(text: string): string {
  return text.replace(/^/gm, '   ');
}
