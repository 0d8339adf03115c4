// Those who submit hostile jobs, to a project of their own: an innocent spec each, and a command that prints what its
// kind says.
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { type HostileKind, hostileProjectId } from './hostile-kinds.ts';
import type { Chance } from './random.ts';
import { send } from './submitters.ts';
import type { World } from './world.ts';

const trainer = fileURLToPath(new URL('./hostile-trainer.ts', import.meta.url));
const submitText = `mutation ($input: SubmitJobInput!) { submitJob(input: $input) {
  __typename ... on SubmitJobPayload { job { id } } ... on UserError { code message } } }`;

type Answer = { submitJob: { job?: { id: string }; message?: string } };

/** Hostile jobs of one run; their names are `h<seed>-<kind>-<number>`. */
export class HostileJobs {
  /** Ids of those that were acknowledged. */
  readonly ids: string[] = [];
  readonly #seed: number;
  #count = 0;

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Submits a job of one of the kinds; false when no gateway acknowledged it. */
  async submit(world: World, chance: Chance, kinds: readonly HostileKind[]): Promise<boolean> {
    const kind = chance.of(kinds);
    const key = `h${this.#seed}-${kind}-${++this.#count}`;
    const spec = {
      projectId: hostileProjectId,
      model: 'hostile',
      dataset: 'none',
      name: key,
      resources: { gpus: 0 }, // its place must not be one of the bystanders'
      command: [
        ...[process.execPath, trainer, key, kind, `${chance.between(10, 40)}`],
        join(world.witnessDir, `${key}.jsonl`),
      ],
    };
    const answer = await send<Answer>(world, chance, submitText, { input: { idempotencyKey: key, spec } });
    if (answer?.submitJob.message) throw new Error(`${key} was refused: ${answer.submitJob.message}`);
    if (!answer?.submitJob.job) return false;
    this.ids.push(answer.submitJob.job.id);
    return true;
  }
}

/** The kind that a job's name tells, or null for a job of somebody else. */
export function kindInName(name: string): string | null {
  return /^h\d+-([a-z]+)-\d+$/.exec(name)?.[1] ?? null;
}
