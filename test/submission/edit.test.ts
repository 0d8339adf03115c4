// What people do with a job after its submission: editing it, and submitting it again with its own values.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { cancelJob } from '../../src/attempt/cancel.ts';
import { Refusal, type RefusalCode } from '../../src/errors.ts';
import { jobEventTypes, listJobEvents } from '../../src/event/event.ts';
import { type JobEdit, updateJob } from '../../src/submission/edit.ts';
import { type Retry, retryJob } from '../../src/submission/retry.ts';
import { getJob, type Job } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { setPolicy } from '../../src/policy/policy.ts';
import { createProject, updateProject } from '../../src/project/project.ts';
import { actor, newJob, openStore, testProject, type TestStore } from '../support/store.ts';

let store: TestStore;
before(async () => void (store = await openStore()));
after(() => store.close());

const edit = (input: JobEdit, by = store.admin) => commit(store, (tx) => updateJob(tx, by, input));

function retry(id: string, changes: Retry['changes'] = {}, key: string | null = null, by = store.admin) {
  return retryJob(store, by, { id, changes, issues: [], idempotencyKey: key });
}

async function endedJob(spec: Record<string, unknown> = {}): Promise<Job> {
  const { id } = await newJob(store, spec);
  return commit(store, (tx) => cancelJob(tx, store.admin, { id, reason: null, gracePeriodSeconds: null }));
}

const rules = (list: { path: string; default?: unknown; max?: number }[]) =>
  commit(store, (tx) => setPolicy(tx, store.admin, { projectId: testProject, rules: list, ifRevision: null }));

async function eventsOf(jobId: string) {
  const page = { types: jobEventTypes, limit: 100, backward: false };
  return listJobEvents(store.database.db, jobId, page);
}

function refused(code: RefusalCode, check: (refusal: Refusal) => void = () => {}) {
  return (error: unknown) => {
    assert.ok(error instanceof Refusal, String(error));
    assert.equal(error.code, code, error.message);
    check(error);
    return true;
  };
}

suite('editing a job', () => {
  test('changes what is said and nothing else, with one event that says from what to what', async () => {
    const { id, name, notes } = await newJob(store, { tags: ['a'] });
    const edited = await edit({ id, name: 'new', tags: ['a', 'b'], priority: 7 });
    assert.deepEqual([edited.name, edited.tags, edited.notes, edited.priority], ['new', ['a', 'b'], notes, 7]);
    const event = (await eventsOf(id)).at(-1);
    assert.deepEqual([event?.type, event?.actorId, event?.seq], ['EDITED', store.admin.tokenId, 2]);
    assert.deepEqual(event?.data, {
      name: { from: name, to: 'new' },
      tags: { from: ['a'], to: ['a', 'b'] },
      priority: { from: 0, to: 7 },
    });
    const priority = edited.resolved.find(({ path }) => path === 'priority');
    assert.deepEqual(
      [priority?.source, priority?.value, edited.effective['priority'], edited.spec['priority']],
      ['REQUEST', 7, 7, undefined],
    );
  });

  test('to what it is already leaves no event', async () => {
    const { id, name } = await newJob(store, { notes: 'n' });
    await edit({ id, name, tags: [], notes: 'n', priority: 0 });
    assert.equal((await eventsOf(id)).length, 1);
    assert.equal((await edit({ id, notes: '' })).notes, null);
  });

  test('that has ended takes tags and notes, and no other priority', async () => {
    const { id } = await endedJob();
    assert.equal((await edit({ id, notes: 'why it was stopped', priority: 0 })).notes, 'why it was stopped');
    await assert.rejects(
      edit({ id, tags: ['x'], priority: 1 }),
      refused('INVALID_STATE', ({ details }) => assert.equal(details.currentState, 'CANCELLED')),
    );
    assert.deepEqual((await getJob(store.database.db, store.admin, id))?.tags, [], 'all or nothing');
  });

  test('refuses all that a submission would refuse, at once, also beyond the policy', async () => {
    const { id } = await newJob(store);
    await assert.rejects(
      edit({ id, name: '', tags: ['x'.repeat(101)], notes: 'a\0', priority: 101 }),
      refused('INVALID_INPUT', ({ details }) => {
        const paths = details.issues?.map(({ path }) => path.join('.')).sort();
        assert.deepEqual(paths, ['input.name', 'input.notes', 'input.priority', 'input.tags.0']);
      }),
    );
    await rules([{ path: 'priority', max: 5 }]);
    await assert.rejects(
      edit({ id, priority: 6 }),
      refused('INVALID_INPUT', ({ message }) => assert.match(message, /maximum 5/)),
    );
    assert.equal((await edit({ id, priority: 5 })).priority, 5);
    await rules([]);
  });

  test('takes scope WRITE in its project', async () => {
    const { id } = await newJob(store);
    await assert.rejects(edit({ id, name: 'x' }, actor(['READ'], testProject)), refused('PERMISSION_DENIED'));
    await assert.rejects(edit({ id, name: 'x' }, actor(['ADMIN'], 'p-other')), refused('NOT_FOUND'));
  });
});

suite('retrying a job', () => {
  test('keeps the values that it was resolved to, with their sources, when defaults and policy have moved on', async () => {
    await rules([{ path: 'hyperparams.epochs', default: 3 }]);
    const first = await endedJob({ hyperparams: { lr: 0.1, note: 'x' }, name: 'mine', tags: ['t'] });
    await rules([{ path: 'hyperparams.epochs', default: 4 }]);
    const { job, replayed } = await retry(first.id);
    assert.equal(replayed, false);
    assert.notEqual(job.id, first.id);
    assert.deepEqual([job.retriedFrom, job.state, job.name, job.tags], [first.id, 'QUEUED', 'mine', ['t']]);
    assert.deepEqual([job.resolved, job.effective, job.specHash], [first.resolved, first.effective, first.specHash]);
    const event = (await eventsOf(job.id)).at(0);
    assert.deepEqual([event?.type, event?.actorId], ['SUBMITTED', store.admin.tokenId]);
    assert.match(event?.message ?? '', new RegExp(`the values of ${testProject}/${first.number}\\.`));
    await rules([]);
  });

  test('with changes takes them over what it had, and says what they took the place of', async () => {
    const first = await endedJob({ hyperparams: { lr: 0.1 }, resources: { gpus: 2 } });
    const changes = { hyperparams: { batch_size: 16, early_stopping: { patience: 9 } }, resources: { gpus: 1 } };
    const { job } = await retry(first.id, changes);
    const value = (path: string) => job.resolved.find((found) => found.path === path);
    assert.deepEqual(value('hyperparams.batch_size'), {
      path: 'hyperparams.batch_size',
      value: 16,
      source: 'REQUEST',
      overrides: [{ source: 'DEFAULT', value: 32 }],
    });
    assert.equal(value('hyperparams.early_stopping.patience')?.value, 9);
    assert.equal(value('hyperparams.lr')?.value, 0.1);
    assert.equal(job.gpus, 1);
    assert.notEqual(job.specHash, first.specHash);
    assert.deepEqual(job.spec, {
      ...first.spec,
      name: first.name,
      defaults_version: first.defaultsVersion,
      hyperparams: { lr: 0.1, batch_size: 16, early_stopping: { patience: 9 } },
      resources: { gpus: 1 },
    });
  });

  test('a second time with the same key gives the first new job, with other changes a conflict', async () => {
    const first = await endedJob();
    const one = await retry(first.id, {}, 'k');
    const two = await retry(first.id, {}, 'k');
    assert.deepEqual([two.replayed, two.job.id], [true, one.job.id]);
    await assert.rejects(
      retry(first.id, { hyperparams: { lr: 1 } }, 'k'),
      refused('IDEMPOTENCY_CONFLICT', ({ details }) => assert.deepEqual(details.differingPaths, ['hyperparams.lr'])),
    );
  });

  test('is refused while it runs, beyond the policy of now, and for changes that no job can have', async () => {
    const queued = await newJob(store);
    await assert.rejects(retry(queued.id), refused('INVALID_STATE'));
    const first = await endedJob({ hyperparams: { epochs: 50 } });
    await rules([{ path: 'hyperparams.epochs', max: 20 }]);
    await assert.rejects(retry(first.id), refused('POLICY_VIOLATION'));
    assert.equal((await retry(first.id, { hyperparams: { epochs: 20 } })).job.effective['hyperparams'] !== null, true);
    await rules([]);
    await assert.rejects(
      retry(first.id, { hyperparams: { lr: -1 }, resources: { gpus: -1 } }),
      refused('INVALID_INPUT', ({ details }) => {
        const paths = details.issues?.map(({ path }) => path.join('.'));
        assert.deepEqual(paths, ['input.hyperparams.lr', 'input.resources.gpus']);
      }),
    );
    await assert.rejects(retry('job_none'), refused('NOT_FOUND'));
  });
});

test('an archived project is read-only until it is brought back', async () => {
  const [id, by] = ['p-old', store.admin];
  const change = (input: { name?: string; archived?: boolean }) =>
    commit(store, (tx) => updateProject(tx, by, { id, ...input }));
  await commit(store, (tx) => createProject(tx, by, { id, command: ['true'] }));
  const { id: jobId } = await newJob(store, { project_id: id });
  const archived = await change({ archived: true });
  assert.ok(archived.archivedAt);
  assert.deepEqual(await change({ archived: true }), archived, 'a repeat changes nothing');
  await assert.rejects(newJob(store, { project_id: id }), refused('INVALID_STATE'));
  await assert.rejects(edit({ id: jobId, name: 'x' }), refused('INVALID_STATE'));
  await assert.rejects(change({ name: 'x' }), refused('INVALID_STATE'));
  const policy = { projectId: id, rules: [], ifRevision: null };
  await assert.rejects(
    commit(store, (tx) => setPolicy(tx, by, policy)),
    refused('INVALID_STATE'),
  );
  await commit(store, (tx) => cancelJob(tx, by, { id: jobId, reason: null, gracePeriodSeconds: null }));
  const back = await change({ archived: false, name: 'back' });
  assert.deepEqual([back.archivedAt, back.name], [null, 'back']);
  await newJob(store, { project_id: id });
});
