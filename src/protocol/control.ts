// Control between a runner and the gateway: /runner/v1/register, claim, drain, renew and lost, and what is published to a runner.
// Plain JSON, dialled by the runner; not in the public schema, since a claim waits and its answer may hold secrets.
import { z } from 'zod';
import { listOf, textOf } from '../shape.ts';

export const gpu = z.object({
  index: z.number().int().min(0).max(1023),
  model: textOf(1, 100),
  memoryBytes: z.number().int().min(0),
});

/** Attempts that a runner takes at once, at most. Each costs it a process, so that a larger number is a mistake. */
export const maxPlaces = 1_000;

/** Places of a runner that names none: two jobs for each GPU, and four at least since jobs without GPUs need one too. */
export function defaultPlaces(gpus: number): number {
  return Math.max(4, 2 * gpus);
}

export const registerRequest = z.object({
  name: textOf(1, 100),
  version: textOf(0, 50),
  labels: listOf(textOf(1, 100), 50),
  gpus: listOf(gpu, 64),
  /** Attempts that it takes at once; a runner of an older build does not say. */
  places: z.number().int().min(1).max(maxPlaces).optional(),
  /** New at each start of the machine or the program. */
  bootId: textOf(0, 64),
});

export const registerAnswer = z.object({
  runnerId: z.string(),
  heartbeatSeconds: z.number(),
  leaseSeconds: z.number(),
  /** Redis that carries the uplink; null when the gateway serves runners in its own process only. */
  redisUrl: z.string().nullable().default(null),
});

export const claimRequest = z.object({
  runnerId: textOf(0, 64),
  freeGpus: listOf(z.number().int().min(0).max(1023), 64),
  /** Repeating it after a lost answer returns the same assignment. */
  requestId: textOf(1, 64),
  waitSeconds: z.number().min(0).max(20),
});

export const assignment = z.object({
  attemptId: z.string(),
  attemptNumber: z.number(),
  leaseToken: z.string(),
  gpus: z.array(z.number()),
  job: z.object({
    id: z.string(),
    number: z.number(),
    name: z.string(),
    projectId: z.string(),
    /** Null for a job that no schedule submitted. */
    scheduleId: z.string().nullable().default(null),
  }),
  /** Effective spec, snake_case as in the job spec file. */
  spec: z.record(z.string(), z.unknown()),
  command: z.array(z.string()).min(1),
  env: z.record(z.string(), z.string()),
  /** Names of the variables in `env` whose values are secrets: they are redacted before disk and network. */
  secretEnv: z.array(z.string()).default([]),
  timeoutSeconds: z.number().nullable(),
  /** Highest record number that is committed: 0 for a new attempt. */
  committed: z.number(),
});

export const claimAnswer = z.object({ assignment: assignment.nullable() });

const directive = z.discriminatedUnion('type', [
  z.object({ type: z.literal('CANCEL'), graceSeconds: z.number().nullable() }),
  /** Somebody else has the job: stop, and send nothing more. */
  z.object({ type: z.literal('ABANDON') }),
]);

export const renewRequest = z.object({ leaseToken: textOf(0, 64) });

/** A runner that takes no more jobs and lets its own end; of which start of it. */
export const drainRequest = z.object({ runnerId: textOf(0, 64), bootId: textOf(0, 64) });
export const drainAnswer = z.object({});

/** An attempt whose supervisor was killed, and of which the runner has proved that nothing runs any more. */
export const lostRequest = z.object({ runnerId: textOf(0, 64) });
export const lostAnswer = z.object({});

/** Answer to `renew`, and the message that acknowledges a batch. It carries numbers only, never content. */
export const acknowledgement = z.object({
  attemptId: z.string(),
  /** Every record up to this number is in the database. */
  committed: z.number(),
  directives: z.array(directive),
  /** The send that it answers: the lease runs anew since then at the earliest. */
  send: z.number().optional(),
});

export type Gpu = z.output<typeof gpu>;
export type RegisterRequest = z.output<typeof registerRequest>;
export type DrainRequest = z.output<typeof drainRequest>;
export type RegisterAnswer = z.output<typeof registerAnswer>;
export type ClaimRequest = z.output<typeof claimRequest>;
export type Assignment = z.output<typeof assignment>;
export type Acknowledgement = z.output<typeof acknowledgement>;
export type Directive = z.output<typeof directive>;
