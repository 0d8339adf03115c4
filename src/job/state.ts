// The state machine of a job. `moveJob` in job.ts asks it for every change of state, and writes the
// change and its event in one transaction.
//
//            ┌──────────────────────── next attempt ─────────────────────┐
//            ▼                                                           │
//   ───▶ QUEUED ───▶ STARTING ───▶ RUNNING ───▶ SUCCEEDED | FAILED | TIMED_OUT
//          │  │          │  │         │
//          │  └▶ TIMED_OUT  └▶ FAILED | TIMED_OUT
//          │             │            │
//          │             └──────┬─────┘
//          ▼                    ▼
//      CANCELLED ◀──────── CANCELLING

export const jobStates = [
  'QUEUED',
  'STARTING',
  'RUNNING',
  'CANCELLING',
  'SUCCEEDED',
  'FAILED',
  'CANCELLED',
  'TIMED_OUT',
] as const;
export type JobState = (typeof jobStates)[number];

const moves: Record<JobState, readonly JobState[]> = {
  QUEUED: ['STARTING', 'CANCELLED', 'TIMED_OUT'],
  STARTING: ['RUNNING', 'FAILED', 'TIMED_OUT', 'CANCELLING', 'QUEUED'],
  RUNNING: ['SUCCEEDED', 'FAILED', 'TIMED_OUT', 'CANCELLING', 'QUEUED'],
  CANCELLING: ['CANCELLED'],
  SUCCEEDED: [],
  FAILED: [],
  CANCELLED: [],
  TIMED_OUT: [],
};

/**
 * Why a job is in its state, or how an attempt ended. `JobStateReasonCode` in the GraphQL schema
 * describes each code.
 */
export type ReasonCode =
  | 'WAITING_FOR_RUNNER'
  | 'WAITING_FOR_GPUS'
  | 'WAITING_FOR_PLACES'
  | 'RETRY_BACKOFF'
  | 'COMPLETED'
  | 'EXIT_CODE'
  | 'SIGNAL'
  | 'OUT_OF_MEMORY'
  | 'CUDA_OUT_OF_MEMORY'
  | 'RUNNER_LOST'
  | 'RUNNER_DRAINED'
  | 'RECORD_REFUSED'
  | 'COMMAND_NOT_STARTED'
  | 'REQUESTED'
  | 'REPLACED_BY_SCHEDULE'
  | 'TIMEOUT'
  | 'QUEUE_TIMEOUT'
  | 'START_TIMEOUT';

export type StateReason = { code: ReasonCode; message: string; hint?: string | null; logExcerpt?: string[] };

export const terminalStates = jobStates.filter((state) => moves[state].length === 0);

/** Whether no other state can follow. */
export function isTerminal(state: string): boolean {
  return (terminalStates as string[]).includes(state);
}

/**
 * Throws an Error for a move that the state machine does not have. Such a move is a bug, never a
 * mistake of a caller.
 */
export function requireMove(from: JobState, to: JobState): void {
  if (!moves[from].includes(to)) throw new Error(`A job cannot go from ${from} to ${to}.`);
}
