// What ends jobs when nobody says anything: a wait in the queue and a start that take too long.
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
    // What we have not read yet may say that the command runs: our own backlog must cost no attempt.
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
