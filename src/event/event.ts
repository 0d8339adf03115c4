// Events are written in the transaction of what they tell about, and never changed.
import type { Tx } from '../live/commit.ts';
import { newId } from '../id.ts';
import { event } from './table.ts';

export type EventType =
  | 'SUBMITTED'
  | 'STATE_CHANGED'
  | 'ATTEMPT_STARTED'
  | 'ATTEMPT_FINISHED'
  | 'CHECKPOINT'
  | 'ALERT'
  | 'PROJECT_CREATED'
  | 'TOKEN_CREATED'
  | 'POLICY_SET';

export type NewEvent = {
  type: EventType;
  /** One sentence for people. */
  message: string;
  projectId: string | null;
  jobId?: string;
  /** Number within the job; with `jobId` always. */
  seq?: number;
  actorId?: string | null;
  fromState?: string;
  toState?: string;
  data?: Record<string, unknown>;
};

/** Writes an event. */
export async function recordEvent(tx: Tx, entry: NewEvent): Promise<void> {
  await tx.insert(event).values({ id: newId('evt'), ...entry });
}
