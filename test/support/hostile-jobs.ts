// Jobs with records that are hard to store: many metric names, and rows that the database refuses.
// Each once let one user stop all others.
import assert from 'node:assert/strict';
import type { Installation } from './installation.ts';
import { jobState, script, submit } from './stack.ts';
import { until } from './until.ts';

/**
 * Returns a command that prints `count` markers of 200 metric names each at once. A reader of the
 * pipe may get them in two pieces.
 */
function markersAtOnce(count: number): string[] {
  const source = `let o='';for(let i=0;i<${count};i++){const m={};for(let j=0;j<200;j++)m['m/'+(i*200+j)]=1;o+='::astraml '+JSON.stringify(m)+'\\n'}process.stdout.write(o)`;
  return ['node', '-e', source];
}

/** 6,600 names: a few more than the parameters of one statement once allowed. */
export const manyNames = markersAtOnce(33);
/** 16,000 names: some batch holds more than 6,600, however the pipe is read. */
export const moreNames = markersAtOnce(80);

/** `m/0` to `m/59999`: the first 20,000 at once, the others over four seconds. */
export const sixtyThousandNames = script(`
  for (let marker = 0; marker < 300; marker++) {
    const values = {};
    for (let n = 0; n < 200; n++) values['m/' + (marker * 200 + n)] = 1;
    console.log('::astraml ' + JSON.stringify(values));
    if (marker >= 100) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  console.log('all were said');
`);

/**
 * Makes the database refuse chunks of the log above 10,000 bytes and metrics named `refused/…`. It
 * goes by size, because a chunk is compressed, so the database cannot see its words; the random
 * line of `refusedRecords` stays large in any chunk.
 */
export async function refuseRows(installation: Installation): Promise<void> {
  await installation.sql(`
    create function refuse_row() returns trigger language plpgsql as $$
    begin
      raise exception 'the test refuses this row of %', tg_table_name;
    end $$`);
  await installation.sql(`
    create trigger refuse_row before insert on log_chunk
      for each row when (octet_length(new.body) > 10000) execute function refuse_row()`);
  await installation.sql(`
    create trigger refuse_row before insert or update on metric
      for each row when (new.name like 'refused/%') execute function refuse_row()`);
}

/**
 * Prints ten lines with a refused one in their middle, and a refused metric before one that is
 * stored.
 */
export const refusedRecords = [
  'sh',
  '-c',
  `for n in 1 2 3 4 5; do echo "line $n"; done
   head -c 12000 /dev/urandom | base64 -w 0; echo
   for n in 6 7 8 9 10; do echo "line $n"; done
   echo '::astraml {"refused/loss": 1}'
   echo '::astraml {"kept/loss": 1}'`,
];

/** Submits a job without GPUs and returns its id. */
export async function submitJob({ first }: Installation, projectId: string, command: string[]): Promise<string> {
  return (await submit(first, projectId, { command, resources: { gpus: 0 } })).id;
}

/** Resolves when the job runs or has run. */
export async function untilRunning({ first }: Installation, id: string): Promise<void> {
  const isRunning = async () => !['QUEUED', 'STARTING'].includes((await jobState(first, id)).state);
  await until(isRunning, { timeoutMs: 90_000, everyMs: 100, what: `${id} runs` });
}

export async function untilSucceeded({ first }: Installation, id: string): Promise<void> {
  let state = '';
  const isOver = async () => {
    ({ state } = await jobState(first, id));
    return ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT'].includes(state);
  };
  await until(isOver, { timeoutMs: 150_000, everyMs: 200, what: `the end of ${id}, in ${state}` });
  const { stateReason } = await jobState(first, id);
  assert.equal(state, 'SUCCEEDED', stateReason?.message);
}

/** Returns the log as `line 1, line 2, REFUSED × 1, …`, without lines of SYSTEM. */
export async function readWholeLog({ first }: Installation, id: string): Promise<string[]> {
  type Log = {
    nodes: { seq: number; stream: string; text: string }[];
    gaps: { fromSeq: number; toSeq: number; reason: string }[];
  };
  const query = `query ($id: ID!) {
    job(id: $id) { logs(first: 1000) { nodes { seq stream text } gaps { fromSeq toSeq reason } } }
  }`;
  const { job } = await first.request<{ job: { logs: Log } }>(query, { id }, { repeatable: true });
  const items = [
    ...job.logs.nodes.filter(({ stream }) => stream !== 'SYSTEM').map(({ seq, text }) => ({ seq, shown: text })),
    ...job.logs.gaps.map(({ fromSeq, toSeq, reason }) => ({
      seq: fromSeq,
      shown: `${reason} × ${toSeq - fromSeq + 1}`,
    })),
  ];
  return items.toSorted((a, b) => a.seq - b.seq).map(({ shown }) => shown);
}

export async function readEvents({ first }: Installation, id: string): Promise<{ type: string; message: string }[]> {
  const query = 'query ($id: ID!) { job(id: $id) { events(last: 100) { nodes { type message } } } }';
  type Answer = { job: { events: { nodes: { type: string; message: string }[] } } };
  const { job } = await first.request<Answer>(query, { id }, { repeatable: true });
  return job.events.nodes;
}
