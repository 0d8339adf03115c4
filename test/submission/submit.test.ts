// Submissions: the key, the number, what is kept, and what comes of many at once.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import { Refusal, type RefusalCode } from '../../src/errors.ts';
import { cancelJob } from '../../src/attempt/cancel.ts';
import type { Job } from '../../src/job/job.ts';
import { planJob } from '../../src/submission/plan.ts';
import { nextJobNumber } from '../../src/submission/number.ts';
import { keyOf, submit as submitJob } from '../../src/submission/submit.ts';
import { event } from '../../src/event/table.ts';
import { job } from '../../src/job/table.ts';
import { commit } from '../../src/live/commit.ts';
import { setPolicy } from '../../src/policy/policy.ts';
import { takeKey } from '../../src/replay/replay.ts';
import { idempotencyKey } from '../../src/replay/table.ts';
import { skipUnless } from '../support/absent.ts';
import { actor, openStore, testProject, type TestStore } from '../support/store.ts';

let store: TestStore;
before(async () => void (store = await openStore()));
after(() => store.close());

const spec = { project_id: testProject, model: 'bert-base', dataset: 's3://bucket/dataset' };
const at = ['input', 'spec'];

async function submit(key: string | null, sent: Record<string, unknown> = spec, by = store.admin) {
  return submitJob(store, by, { spec: sent, at }, keyOf('submitJob', key, sent));
}

function refused(code: RefusalCode, check: (refusal: Refusal) => void = () => {}) {
  return (error: unknown) => {
    assert.ok(error instanceof Refusal, String(error));
    assert.equal(error.code, code);
    check(error);
    return true;
  };
}

suite('submitting with a key', () => {
  test('makes one job of 50 calls at once, and 50 equal answers', async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => submit('fifty')));
    assert.equal(new Set(answers.map(({ job: { id } }) => id)).size, 1);
    assert.equal(answers.filter(({ replayed }) => !replayed).length, 1);
    const [first] = answers;
    for (const { job: one } of answers) assert.deepEqual(one, first?.job);
    assert.equal(await store.database.db.$count(job, sql`${job.id} = ${first?.job.id}`), 1);
    assert.equal(await store.database.db.$count(event, sql`${event.jobId} = ${first?.job.id}`), 1);
  });

  test('a second time with the same input gives the job as it is now', async () => {
    const first = await submit('again');
    await commit(store, (tx) =>
      cancelJob(tx, store.admin, { id: first.job.id, reason: null, gracePeriodSeconds: null }),
    );
    const second = await submit('again');
    assert.deepEqual([second.replayed, second.job.id, second.job.state], [true, first.job.id, 'CANCELLED']);
  });

  test('with another input is a conflict that names the paths', async () => {
    await submit('other', { ...spec, hyperparams: { batch_size: 32, lr: 1 } });
    const changed = submit('other', { ...spec, hyperparams: { batch_size: 64 }, name: 'x' });
    await assert.rejects(
      changed,
      refused('IDEMPOTENCY_CONFLICT', ({ details }) =>
        assert.deepEqual(details.differingPaths, ['hyperparams.batch_size', 'hyperparams.lr', 'name']),
      ),
    );
  });

  test('that is refused does not use the key up', async () => {
    await assert.rejects(submit('refused', { ...spec, hyperparams: { lr: -1 } }), refused('INVALID_INPUT'));
    assert.equal((await submit('refused')).replayed, false);
  });

  test('is scoped to the project and the mutation', async () => {
    await submit('scoped');
    const other = { scope: 'p-other', mutation: 'submitJob', key: 'scoped', input: {}, objectId: 'x' };
    await commit(store, async (tx) => {
      assert.equal(await takeKey(tx, other), null);
      assert.equal(await takeKey(tx, { ...other, scope: testProject, mutation: 'createToken' }), null);
    });
  });

  test('of no characters or too many is refused', async () => {
    await assert.rejects(submit(''), refused('INVALID_INPUT'));
    await assert.rejects(submit('x'.repeat(256)), refused('INVALID_INPUT'));
    assert.equal((await submit('x'.repeat(255))).replayed, false);
  });

  test('that another transaction still holds is IN_PROGRESS, and works later', skipUnless('postgres'), async () => {
    let release = () => {};
    const released = new Promise<void>((resolve) => (release = resolve));
    let held = () => {};
    const holding = new Promise<void>((resolve) => (held = resolve));
    const first = commit(store, async (tx) => {
      await takeKey(tx, { scope: testProject, mutation: 'submitJob', key: 'held', input: { ...spec }, objectId: 'x' });
      held();
      await released;
      throw new Error('the first is refused after all');
    });
    await holding;
    const second = await submit('held').catch((error: unknown) => error);
    assert.ok(refused('IN_PROGRESS', (refusal) => assert.ok(refusal.retryable))(second));
    release();
    await assert.rejects(first);
    assert.equal((await submit('held')).replayed, false);
  });

  test('leaves no key without a job and no job without its key', async () => {
    const rows = await store.database.db.execute(
      sql`select count(*)::integer as n from ${idempotencyKey} left join ${job} on ${job.id} = object_id
          where mutation = 'submitJob' and scope = ${testProject} and ${job.id} is null`,
    );
    assert.equal(rows[0]?.['n'], 0);
  });
});

suite('a submission', () => {
  test('reports an unknown version, a bad value and a shadowed field at once', async () => {
    const issues = [{ code: 'NOT_ALLOWED' as const, path: ['hyperparams', 'extra', 'lr'], message: 'x' }];
    const plan = await planJob(store.database.db, store.admin, {
      spec: { ...spec, defaults_version: 'v2.l', resources: { gpus: -1 } },
      issues,
      at,
    });
    assert.equal(plan.ready, false);
    const found = plan.refusal.details.issues?.map(({ code, path }) => `${code} ${path.join('.')}`);
    assert.deepEqual(found, [
      'OUT_OF_RANGE input.spec.resources.gpus',
      'NOT_ALLOWED input.spec.hyperparams.extra.lr',
      'UNKNOWN_VERSION input.spec.defaultsVersion',
    ]);
    assert.match(plan.refusal.details.issues?.at(-1)?.hint ?? '', /Did you mean "v2.1"/);
  });

  test('to a project that the caller may not see looks like one to none', async () => {
    const stranger = actor(['WRITE'], 'p-other');
    await assert.rejects(submit(null, spec, stranger), refused('NOT_FOUND'));
    await assert.rejects(submit(null, { ...spec, project_id: 'p-none' }), refused('NOT_FOUND'));
    await assert.rejects(submit(null, spec, actor(['READ'], testProject)), refused('PERMISSION_DENIED'));
  });

  test('keeps what was sent, what it became, and where each value came from', async () => {
    const { job: made } = await submit(null, { ...spec, hyperparams: { lr: 3e-5, mine: 'x' }, tags: ['a'] });
    assert.deepEqual(made.spec, { ...spec, hyperparams: { lr: 3e-5, mine: 'x' }, tags: ['a'] });
    assert.equal(made.defaultsVersion, 'v2.1');
    assert.match(made.specHash, /^[0-9a-f]{64}$/);
    assert.match(made.name, /^[a-z]+-[a-z]+$/);
    assert.deepEqual(made.effective['command'], ['true']);
  });

  test('that is a repeat or is refused skips no number', async () => {
    const { job: first } = await submit('dense');
    await submit('dense');
    await assert.rejects(submit('dense2', { ...spec, priority: 1_000 }), refused('INVALID_INPUT'));
    await assert.rejects(submit('dense', { ...spec, name: 'other' }), refused('IDEMPOTENCY_CONFLICT'));
    const { job: next } = await submit('dense3');
    assert.equal(next.number, first.number + 1);
  });

  test('gets a number that nobody else has, growing', async () => {
    const numbers = await Promise.all(Array.from({ length: 200 }, () => nextJobNumber(store.database, testProject)));
    assert.equal(new Set(numbers).size, 200);
    assert.deepEqual(
      numbers,
      numbers.toSorted((a, b) => a - b),
    );
    await assert.rejects(nextJobNumber(store.database, 'p-none'), refused('NOT_FOUND'));
  });
});

suite('Submissions that come at once', () => {
  const outcomes = (all: Promise<{ job: Job; replayed: boolean }>[]) =>
    Promise.all(
      all.map((one) =>
        one.then(
          ({ replayed }) => (replayed ? 'repeat' : 'new'),
          (error: unknown) => (error instanceof Refusal ? error.code : 'bug'),
        ),
      ),
    );
  const others = () => Array.from({ length: 20 }, (_, index) => submit(index % 2 ? randomUUID() : null));

  test('have each their own outcome', async () => {
    await submit('known');
    const before = await store.database.db.$count(job);
    const [twin, twain, ...rest] = await outcomes([
      submit('twin'),
      submit('twin'),
      submit('known'),
      submit('known', { ...spec, name: 'other' }),
      submit('crowd-refused', { ...spec, priority: 1_000 }),
      submit('x'.repeat(256)),
      submit('nul\0'),
      submit(null, { ...spec, project_id: 'p-none' }),
      submit('half\ud800'),
      ...others(),
    ]);
    const refusals = ['IDEMPOTENCY_CONFLICT', 'INVALID_INPUT', 'INVALID_INPUT', 'INVALID_INPUT', 'NOT_FOUND'];
    assert.deepEqual([twin, twain].sort(), ['new', 'repeat']);
    assert.deepEqual(rest, ['repeat', ...refusals, ...Array.from({ length: 21 }, () => 'new')]);
    assert.equal((await store.database.db.$count(job)) - before, 22);
    assert.equal((await submit('crowd-refused')).replayed, false);
  });

  test('do not wait for a key of one of them for long', skipUnless('postgres'), async () => {
    const held = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const holder = commit(store, async (tx) => {
      await takeKey(tx, { scope: testProject, mutation: 'submitJob', key: 'slow', input: { ...spec }, objectId: 'x' });
      held.resolve();
      await released.promise;
      throw new Error('given up');
    });
    await held.promise;
    const waiting = submit('slow');
    const all = await Promise.all(others());
    released.resolve(); // what waits for the key has not ended by now
    await assert.rejects(holder);
    assert.equal((await waiting).replayed, false);
    assert.equal(new Set(all.map(({ job: { number } }) => number)).size, 20);
  });

  test('are written in few transactions', skipUnless('postgres'), async () => {
    const all = await Promise.all(others());
    const transactions = new Set(all.map(({ job: { changed } }) => changed));
    assert.ok(transactions.size < all.length, `${transactions.size} transactions for ${all.length} jobs`);
  });

  test('are checked with what is committed when they are sent', async () => {
    const limit = (max: number) =>
      commit(store, (tx) =>
        setPolicy(tx, store.admin, {
          projectId: testProject,
          rules: [{ path: 'hyperparams.epochs', max }],
          ifRevision: null,
        }),
      );
    const five = { ...spec, hyperparams: { epochs: 5 } };
    for (const [max, code] of [
      [4, 'POLICY_VIOLATION'],
      [6, 'new'],
      [3, 'POLICY_VIOLATION'],
      [9, 'new'],
    ] as const) {
      const meanwhile = outcomes([submit(null, five), submit(null, five)]);
      await limit(max);
      const others = await outcomes(Array.from({ length: 5 }, () => submit(null, five)));
      assert.deepEqual(
        others,
        Array.from({ length: 5 }, () => code),
      );
      await meanwhile;
    }
  });
});
