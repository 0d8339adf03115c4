// The control experiment. Before a record is refused, the gateway stores good records of its own,
// of the same types, by the same code, in a transaction that it rolls back. When these fail too,
// the fault lies with the gateway or its database, e.g. a missing migration, and no record may be
// refused.
import { randomBytes } from 'node:crypto';
import { type Actor, withIncluded } from '../actor.ts';
import { loadAttempts } from '../attempt/attempt.ts';
import { startAttempt } from '../attempt/claim.ts';
import { newId } from '../id.ts';
import { changeJob, insertJobs } from '../job/job.ts';
import { commit, type Store, type Tx } from '../live/commit.ts';
import { createProject } from '../project/project.ts';
import { decodeBatch, encodeBatch, linesCrcAfter, type RunnerRecord } from '../protocol/record.ts';
import { registerRunner } from '../runner/runner.ts';
import type { EffectiveSpec } from '../spec/shape.ts';
import { noCounts } from './counts.ts';
import { refuseBatch, takeBatches } from './intake.ts';

type RecordType = RunnerRecord['type'];

const leaseSeconds = 30;
const text = 'Ordinary text: ü 👍.';

/** One good record of each type, in an order in which an attempt may send them. */
const goodRecords = (time: number): RunnerRecord[] => [
  { type: 'started', time },
  { type: 'line', time, stream: 'STDOUT', text },
  { type: 'gap', time, lines: 2, reason: 'SPOOL_OVERFLOW' },
  { type: 'points', time, step: 1, epoch: 0.5, values: { 'train/loss': 0.25, 'train/worst': 'NaN' } },
  { type: 'progress', time, step: 1, totalSteps: 2, epoch: 0.5, totalEpochs: 1 },
  { type: 'checkpoint', time, step: 1, path: 'checkpoint-1' },
  { type: 'alert', time, level: 'warn', title: 'Title', text },
];

const goodEnd = (time: number): RunnerRecord => ({
  type: 'finished',
  time,
  outcome: 'EXITED',
  exitCode: 0,
  signal: null,
  message: '',
  lines: 2,
  linesCrc: linesCrcAfter(0, [text, text]),
});

/**
 * Resolves when good records of these types can be stored, and one can be refused. Else rejects
 * with the error.
 */
export async function runControl(store: Store, types: ReadonlySet<RecordType>): Promise<void> {
  const rollback = new Error('The control experiment is over.');
  const experiment = commit(store, async (tx) => {
    await storeGood(tx, types);
    throw rollback;
  });
  await experiment.catch((error: unknown) => {
    if (error !== rollback) throw error;
  });
}

async function storeGood(tx: Tx, types: ReadonlySet<RecordType>): Promise<void> {
  const { attemptId, leaseToken } = await makeAttempt(tx);
  const time = Date.now();
  const batchOf = (first: number, records: RunnerRecord[]) => {
    const batch = decodeBatch(encodeBatch({ version: 1, attemptId, leaseToken, first, records }));
    if (!batch) throw new Error('A batch that was just encoded cannot be decoded.');
    return batch;
  };
  const counts = noCounts();
  const line = batchOf(1, [{ type: 'line', time, stream: 'STDOUT', text }]);
  await refuseBatch(tx, line, { reason: 'The control experiment.', leaseSeconds, counts });
  const records = goodRecords(time).filter(({ type }) => types.has(type) || type === 'line');
  if (types.has('finished')) records.push(goodEnd(time));
  await takeBatches(tx, [batchOf(2, records)], leaseSeconds, counts);
  if (counts.refused !== 1 || counts.records !== records.length) {
    throw new Error('Records that are known to be good were not accepted.');
  }
}

/**
 * Makes a project, a runner, a job and an attempt. No one sees them: the transaction is rolled
 * back.
 */
async function makeAttempt(tx: Tx): Promise<{ attemptId: string; leaseToken: string }> {
  const actor: Actor = {
    tokenId: 'control',
    name: 'control',
    projectId: null,
    runnerProjectIds: null,
    scopes: withIncluded(['ADMIN', 'RUNNER']),
    expiresAt: null,
  };
  const name = `control-${randomBytes(16).toString('hex')}`;
  const project = await createProject(tx, actor, { id: `p-${name}`, command: ['true'] });
  const runner = await registerRunner(tx, actor, { name, version: '0', labels: [], gpus: [], bootId: name });
  const [job] = await insertJobs(tx, [draftOf(project.id)]);
  const claim = { requestId: name, gpus: [], leaseSeconds };
  const attemptId = job && (await changeJob(tx, job.id, (locked) => startAttempt(tx, locked, runner, claim)));
  const attempt = attemptId && (await loadAttempts(tx, [attemptId])).get(attemptId);
  if (!attempt) throw new Error('The control experiment could start no attempt.');
  return { attemptId: attempt.id, leaseToken: attempt.leaseToken };
}

function draftOf(projectId: string): Parameters<typeof insertJobs>[1][number] {
  const id = newId('job');
  const effective: EffectiveSpec = {
    project_id: projectId,
    model: 'control',
    dataset: 'control',
    command: ['true'],
    priority: 0,
    max_retries: 0,
    resources: { gpus: 0, labels: [] },
    metrics: { window_seconds: 30 },
    logs: { max_bytes: 1_000_000 },
    hyperparams: {
      batch_size: 1,
      lr: 1,
      epochs: 1,
      lr_scheduler: 'constant',
      gradient_accumulation_steps: 1,
      early_stopping: { enabled: false, patience: 1, goal: 'MINIMIZE', min_delta: 0 },
    },
  };
  return {
    row: {
      id,
      projectId,
      number: 1,
      name: 'control',
      state: 'QUEUED',
      model: 'control',
      dataset: 'control',
      spec: {},
      effective,
      resolved: [],
      defaultsVersion: 'control',
      policyRevision: 0,
      specHash: 'control',
      tags: [],
      notes: null,
      priority: 0,
      gpus: 0,
      timeoutSeconds: null,
      submittedBy: 'control',
      scheduleId: null,
      dueAt: null,
      retriedFrom: null,
    },
    event: { type: 'SUBMITTED', projectId, jobId: id, seq: 1, actorId: null, message: 'The control experiment.' },
  };
}
