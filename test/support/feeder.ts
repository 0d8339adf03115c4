// A runner without commands or processes: signs on, claims a job and sends records as a supervisor
// does, one batch in flight, sent again every second until it is acknowledged.
import { randomUUID } from 'node:crypto';
import { type Bus, channels, uplinkShard } from '../../src/bus/bus.ts';
import { acknowledgement, type Assignment, claimAnswer, registerAnswer } from '../../src/protocol/control.ts';
import { encodeBatch, nextLinesCrc } from '../../src/protocol/record.ts';
import { until } from './until.ts';

const patienceMs = 20_000;

export type Feeder = {
  readonly assignment: Assignment;
  /** Sends lines, one record each; resolves when they are committed. */
  lines(texts: readonly string[]): Promise<void>;
  /** Ends the attempt with exit code 0. */
  finish(): Promise<void>;
};

/** Posts `body` to `/runner/v1/<path>` and returns the answer. */
export async function call(url: string, token: string, path: string, body: unknown): Promise<unknown> {
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` };
  const answer = await fetch(`${url}/runner/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

/** Signs a runner on and claims the next job over the gateway at `url`; records go over `bus`. */
export async function openFeeder(url: string, token: string, bus: Bus): Promise<Feeder> {
  const gpus = [{ index: 0, model: 'virtual', memoryBytes: 0 }];
  const sign = { name: 'by hand', version: '0', labels: [], gpus, bootId: 'boot' };
  const { runnerId } = registerAnswer.parse(await call(url, token, 'register', sign));
  let committed = 0;
  let [sent, lineCount, linesCrc] = [0, 0, 0];
  await bus.subscribe(channels.runner(runnerId), (message) => {
    const parsed = acknowledgement.safeParse(JSON.parse(message)).data;
    if (parsed?.attemptId === assignment?.attemptId) committed = Math.max(committed, parsed?.committed ?? 0);
  });
  const request = { runnerId, freeGpus: [0], requestId: randomUUID(), waitSeconds: 5 };
  const { assignment } = claimAnswer.parse(await call(url, token, 'claim', request));
  if (!assignment) throw new Error('there is no job to claim');
  const { attemptId, leaseToken } = assignment;

  async function send(records: Record<string, unknown>[]): Promise<void> {
    const stamped = records.map((record) => ({ ...record, time: Date.now() }));
    const batch = encodeBatch({ version: 1, attemptId, leaseToken, first: sent + 1, records: stamped });
    sent += records.length;
    for (const deadline = Date.now() + patienceMs; Date.now() < deadline;) {
      await bus.append(uplinkShard(attemptId), batch).catch(() => {});
      const heard = await until(() => committed >= sent, { timeoutMs: 1_000 }).catch(() => false);
      if (heard) return;
    }
    throw new Error(`${attemptId}: ${committed} of ${sent} records were acknowledged`);
  }

  await send([{ type: 'started' }]);
  return {
    assignment,
    lines(texts) {
      lineCount += texts.length;
      linesCrc = texts.reduce(nextLinesCrc, linesCrc);
      return send(texts.map((text) => ({ type: 'line', stream: 'STDOUT', text })));
    },
    finish: () =>
      send([
        { type: 'finished', outcome: 'EXITED', exitCode: 0, signal: null, message: '', lines: lineCount, linesCrc },
      ]),
  };
}
