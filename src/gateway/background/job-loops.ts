// Loops that end jobs by time alone: a wait in the queue that is too long, and a start that takes
// too long.
import { expireWaits, listLateStarts } from '../../attempt/end.ts';
import type { Consumer } from '../../intake/consumer.ts';
import { expireLateStart } from '../../intake/lost.ts';
import { commit, type Store } from '../../live/commit.ts';
import { type LoopOptions, startLoop } from './loops.ts';

const everyMs = 1_000;
const jobsAStep = 50;

export function startJobLoops(
  store: Store,
  consumer: Pick<Consumer, 'isWell'>,
  report: LoopOptions['report'],
): { stop(): Promise<void> }[] {
  const endWaits = async () => (await commit(store, (tx) => expireWaits(tx, jobsAStep))) === jobsAStep;
  const endStarts = async () => {
    // Unread records may say that the command runs already, so a gateway with a backlog ends no
    // attempt.
    if (!consumer.isWell()) return false;
    const late = await listLateStarts(store.database.db, jobsAStep);
    for (const attempt of late) await commit(store, (tx) => expireLateStart(tx, attempt));
    return late.length === jobsAStep;
  };
  return [
    startLoop({ name: 'waits', everyMs, step: endWaits, report }),
    startLoop({ name: 'starts', everyMs, step: endStarts, report }),
  ];
}
