// Control messages between a runner and the gateway, as JSON: requests to /runner/v1/register,
// claim, drain, renew and lost, and messages to a runner. They are no part of the public schema,
// since a claim waits and its answer may hold secrets.
import { z } from 'zod';
import { listOf, textOf } from '../shape.ts';

export const gpu = z.object({
  index: z.number().int().min(0).max(1023),
  model: textOf(1, 100),
  memoryBytes: z.number().int().min(0),
});

/**
 * Upper bound of the attempts that a runner runs at once. Each one is a process, so a larger number
 * is a mistake.
 */
export const maxPlaces = 1_000;

/**
 * Returns the number of attempts at once for a runner that names none: two per GPU, and at least
 * four, since jobs without GPUs need a place too.
 */
export function defaultPlaces(gpus: number): number {
  return Math.max(4, 2 * gpus);
}

export const registerRequest = z.object({
  name: textOf(1, 100),
  version: textOf(0, 50),
  labels: listOf(textOf(1, 100), 50),
  gpus: listOf(gpu, 64),
  /** Attempts that it runs at once; absent from a runner of an older build. */
  places: z.number().int().min(1).max(maxPlaces).optional(),
  /** Changes at each start of the machine or the program. */
  bootId: textOf(0, 64),
});

export const registerAnswer = z.object({
  runnerId: z.string(),
  heartbeatSeconds: z.number(),
  leaseSeconds: z.number(),
  /**
   * Redis that carries the uplink; null when the gateway serves only runners in its own process.
   */
  redisUrl: z.string().nullable().default(null),
});

export const claimRequest = z.object({
  runnerId: textOf(0, 64),
  freeGpus: listOf(z.number().int().min(0).max(1023), 64),
  /**
   * Id of the claim. A repeat with the same id, e.g. after a lost answer, gets the same assignment.
   */
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
    /** Schedule that submitted the job; null for others. */
    scheduleId: z.string().nullable().default(null),
  }),
  /** The effective spec, in the snake_case of the job spec file. */
  spec: z.record(z.string(), z.unknown()),
  command: z.array(z.string()).min(1),
  env: z.record(z.string(), z.string()),
  /**
   * Names of the variables in `env` with secret values, which the runner redacts before disk and
   * network.
   */
  secretEnv: z.array(z.string()).default([]),
  timeoutSeconds: z.number().nullable(),
  /** Highest record number in the database; 0 for a new attempt. */
  committed: z.number(),
});

export const claimAnswer = z.object({ assignment: assignment.nullable() });

const directive = z.discriminatedUnion('type', [
  z.object({ type: z.literal('CANCEL'), graceSeconds: z.number().nullable() }),
  /** The attempt lost its job: stop the command and send nothing more. */
  z.object({ type: z.literal('ABANDON') }),
]);

export const renewRequest = z.object({ leaseToken: textOf(0, 64) });

/**
 * A runner that claims no more jobs and lets its own end. `bootId` names the start of the program.
 */
export const drainRequest = z.object({ runnerId: textOf(0, 64), bootId: textOf(0, 64) });
export const drainAnswer = z.object({});

/**
 * Reports an attempt whose supervisor was killed. The runner has proved that none of its processes
 * run.
 */
export const lostRequest = z.object({ runnerId: textOf(0, 64) });
export const lostAnswer = z.object({});

/**
 * Answer to `renew`, and the message that acknowledges a batch. It holds numbers, never content.
 */
export const acknowledgement = z.object({
  attemptId: z.string(),
  /** Every record up to this number is in the database. */
  committed: z.number(),
  directives: z.array(directive),
  /** Number of the send that it answers: the runner counts its lease from the time of that send. */
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
