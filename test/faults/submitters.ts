// Those who submit: with a key each time, sent again when no answer came, sometimes twice at once, sometimes with the
// key of another submission. What they were told is kept; the checker compares it with what is there.
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import type { Chance } from './random.ts';
import type { World } from './world.ts';

export const projectId = 'p-faults';

export type Submission = {
  /** Idempotency key, and the name of the job. */
  readonly key: string;
  readonly lines: number;
  /** Job ids that answers named. */
  readonly acknowledged: Set<string>;
  /** Answers that said nothing: the gateway, or the way to it, was away. */
  unknown: number;
  /** Its key was sent with another input, and what was answered. */
  readonly misuses: string[];
  /** Somebody asked for it to be cancelled. */
  cancelled: boolean;
};

const trainer = fileURLToPath(new URL('./trainer.ts', import.meta.url));
const patienceMs = 4_000;
const submitText = `mutation ($input: SubmitJobInput!) { submitJob(input: $input) {
  __typename ... on SubmitJobPayload { replayed job { id } } ... on UserError { code message } } }`;
const cancelText = `mutation ($input: CancelJobInput!) { cancelJob(input: $input) { __typename } }`;

/** Sends an operation to one of the gateways; null when no usable answer came. */
export async function send<Data>(world: World, chance: Chance, query: string, variables: object): Promise<Data | null> {
  const { port } = chance.of(world.gateways).links.front;
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${world.token}` },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.timeout(patienceMs),
    });
    const body = (await answer.json()) as { data?: Data; errors?: unknown[] };
    return answer.ok && !body.errors ? (body.data ?? null) : null;
  } catch {
    return null;
  }
}

/** Submits until the signal: `most` jobs at a time may be unfinished, by what `unfinished` says. */
export async function submitJobs(
  world: World,
  chance: Chance,
  options: { prefix: string; unfinished(): number; most: number; signal: AbortSignal; submissions: Submission[] },
): Promise<void> {
  for (let n = 1; !options.signal.aborted; n++) {
    if (options.unfinished() < options.most) {
      const lines = chance.between(40, 200);
      const acknowledged = new Set<string>();
      const submission = {
        key: `${options.prefix}-${n}`,
        lines,
        acknowledged,
        unknown: 0,
        misuses: [],
        cancelled: false,
      };
      options.submissions.push(submission);
      await submitOne(world, chance, submission, options.signal);
    }
    await sleep(chance.between(50, 400));
  }
}

async function submitOne(world: World, chance: Chance, submission: Submission, signal: AbortSignal): Promise<void> {
  const input = {
    idempotencyKey: submission.key,
    spec: {
      projectId,
      model: 'witness',
      dataset: 'none',
      name: submission.key,
      resources: { gpus: 1 },
      command: [
        ...[process.execPath, trainer, submission.key, `${submission.lines}`, `${chance.between(10, 25)}`],
        join(world.witnessDir, `${submission.key}.jsonl`),
      ],
    },
  };
  type Answer = { submitJob: { __typename: string; code?: string; message?: string; job?: { id: string } } };
  const sendOnce = async () => {
    const answer = await send<Answer>(world, chance, submitText, { input });
    if (answer?.submitJob.job) submission.acknowledged.add(answer.submitJob.job.id);
    else submission.unknown++;
    if (answer?.submitJob.code) throw new Error(`${submission.key} was refused: ${answer.submitJob.message}`);
  };
  await (chance.is(0.1) ? Promise.all([sendOnce(), sendOnce()]) : sendOnce());
  // Three of four that heard nothing ask again, until they know; the others leave it at that.
  const insists = chance.is(0.75);
  while (insists && submission.acknowledged.size === 0 && !signal.aborted) {
    await sleep(chance.between(100, 800));
    await sendOnce();
  }
  if (chance.is(0.05)) {
    const other = { ...input, spec: { ...input.spec, hyperparams: { batchSize: chance.between(1, 1_000) } } };
    const answer = await send<Answer>(world, chance, submitText, { input: other });
    submission.misuses.push(answer?.submitJob.code ?? answer?.submitJob.__typename ?? 'unknown');
    if (answer?.submitJob.job && submission.acknowledged.size > 0) submission.acknowledged.add(answer.submitJob.job.id);
  }
  const [jobId] = submission.acknowledged;
  if (jobId && chance.is(0.08)) {
    submission.cancelled = true;
    void sleep(chance.between(0, 3_000)).then(() => send(world, chance, cancelText, { input: { id: jobId } }));
  }
}
