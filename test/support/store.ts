// A store for tests of single rooms: a new database (on a real server if there is one, else
// embedded), an in-memory bus, the defaults, a project and its actors.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Actor, type TokenScope, withIncluded } from '../../src/actor.ts';
import { memoryBus } from '../../src/bus/memory.ts';
import { openDatabase } from '../../src/database/database.ts';
import { ensureDefaults } from '../../src/defaults/defaults.ts';
import { type Job } from '../../src/job/job.ts';
import { submit } from '../../src/submission/submit.ts';
import { commit, type Store } from '../../src/live/commit.ts';
import { createProject } from '../../src/project/project.ts';
import type { Assignment } from '../../src/protocol/control.ts';
import { decodeBatch, type DecodedBatch, encodeBatch } from '../../src/protocol/record.ts';
import { registerRunner, type Runner } from '../../src/runner/runner.ts';
import { skipUnless } from './absent.ts';
import { seedDataDir } from './embedded.ts';
import { startDatabase } from './postgres.ts';

export type TestStore = Store & { readonly admin: Actor; readonly runnerActor: Actor; close(): Promise<void> };

export const testProject = 'p-test';

export function actor(
  scopes: TokenScope[],
  projectId: string | null = null,
  tokenId = `tok_${scopes.join('')}`,
): Actor {
  return { tokenId, name: tokenId, projectId, runnerProjectIds: null, scopes: withIncluded(scopes), expiresAt: null };
}

/** Opens a store with the project `p-test`, whose command is `["true"]`. */
export async function openStore(options: { engine?: 'embedded' } = {}): Promise<TestStore> {
  const { database, end } = await openAny(options.engine === 'embedded' || skipUnless('postgres').skip !== undefined);
  const bus = memoryBus();
  const store = { database, bus };
  const admin = actor(['ADMIN']);
  await commit(store, async (tx) => {
    await ensureDefaults(tx);
    await createProject(tx, admin, { id: testProject, command: ['true'] });
  });
  return {
    ...store,
    admin,
    runnerActor: actor(['RUNNER']),
    async close() {
      await bus.close();
      await database.close();
      await end();
    },
  };
}

async function openAny(embedded: boolean) {
  if (!embedded) {
    const { url, stop } = await startDatabase();
    return { database: await openDatabase({ url, dataDir: '' }), end: stop };
  }
  const dataDir = await mkdtemp(join(tmpdir(), 'astraml-store-'));
  await seedDataDir(dataDir);
  return { database: await openDatabase({ url: null, dataDir }), end: () => rm(dataDir, { recursive: true }) };
}

/** Submits a job to `p-test`. */
export async function newJob(store: TestStore, spec: Record<string, unknown> = {}, by = store.admin): Promise<Job> {
  const submission = { spec: { project_id: testProject, model: 'm', dataset: 'd', ...spec }, at: ['input', 'spec'] };
  return (await submit(store, by, submission)).job;
}

/** Signs a runner on. */
export async function newRunner(store: TestStore, name = 'test', gpus = 1, labels: string[] = []): Promise<Runner> {
  return commit(store, (tx) =>
    registerRunner(tx, store.runnerActor, {
      name,
      version: '0',
      labels,
      gpus: Array.from({ length: gpus }, (_, index) => ({ index, model: 'virtual', memoryBytes: 0 })),
      bootId: 'boot',
      places: 1_000, // most tests end no attempt, so places must not run out
    }),
  );
}

/**
 * Makes a batch as the holder of an assignment sends it. `first` is the number of its first record
 * and of its send.
 */
export function batchOf(
  { attemptId, leaseToken }: Pick<Assignment, 'attemptId' | 'leaseToken'>,
  first: number,
  records: unknown[],
): DecodedBatch {
  const batch = decodeBatch(encodeBatch({ version: 1, attemptId, leaseToken, first, send: first, records }));
  if (!batch) throw new Error('A batch that was just encoded cannot be decoded.');
  return batch;
}
