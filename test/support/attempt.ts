// One attempt with its own supervisor, and a stand-in for the gateway that acknowledges as the test
// says.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Executor } from '../../src/agent/executor.ts';
import { Supervisor } from '../../src/agent/supervisor.ts';
import type { Directive } from '../../src/protocol/control.ts';
import { decodeBatch, numbersOf, type RecordOf, type RunnerRecord } from '../../src/protocol/record.ts';

let attempts = 0;

export type AttemptOptions = {
  workDir: string;
  executor: Executor;
  command: string[];
  attemptId?: string;
  graceMs?: number;
  leaseMs?: number;
  spec?: object;
  spoolBytes?: number;
};

export function startAttempt(options: AttemptOptions) {
  const { workDir, executor, command, attemptId = `att_${++attempts}` } = options;
  const records: RunnerRecord[] = [];
  const troubles: unknown[] = [];
  const gateway = { away: false, committed: 0, directives: [] as Directive[], heardAt: 0 };
  const supervisor = new Supervisor({
    assignment: {
      attemptId,
      attemptNumber: 1,
      leaseToken: 'lease',
      gpus: [],
      job: { id: `job_${process.pid}_${attemptId}`, number: 1, name: 'n', projectId: 'p', scheduleId: null },
      spec: { ...options.spec },
      command,
      env: {},
      secretEnv: [],
      timeoutSeconds: null,
      committed: 0,
    },
    executor,
    workDir,
    gatewayUrl: 'http://gateway',
    place: 'here',
    virtualGpus: true,
    append: async (_stream, text) => {
      if (gateway.away) throw new Error('away');
      const batch = decodeBatch(text);
      assert.ok(batch);
      let number = batch.first;
      for (const record of batch.records as RunnerRecord[]) {
        if (number === gateway.committed + 1) {
          records.push(record);
          gateway.committed += numbersOf(record);
        }
        number += numbersOf(record);
      }
      const { committed, directives } = gateway;
      gateway.heardAt = performance.now();
      setImmediate(() => supervisor.acknowledge({ attemptId, committed, directives, send: batch.send }));
    },
    renew: () => Promise.reject(new Error('away')),
    heartbeatMs: (options.leaseMs ?? 30_000) / 3,
    leaseMs: options.leaseMs ?? 30_000,
    whenCut: 'continue',
    graceMs: options.graceMs ?? 1_000,
    spoolBytes: options.spoolBytes,
    host: process.env,
    onTrouble: (error) => void troubles.push(error),
  });
  const lines = (stream: string) =>
    records
      .filter((record): record is RecordOf<'line'> => record.type === 'line' && record.stream === stream)
      .map(({ text }) => text);
  const finished = () => records.at(-1) as RecordOf<'finished'>;
  return { supervisor, gateway, records, troubles, lines, finished, folder: join(workDir, 'attempts', attemptId) };
}
