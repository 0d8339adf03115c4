// Versions of the defaults: published whole, current by an administrator's act only, the same on every gateway; and jobs
// that keep what they were resolved with. On real Postgres where there is one.
import assert from 'node:assert/strict';
import { after, afterEach, before, suite, test } from 'node:test';
import fc from 'fast-check';
import { and, eq, isNull, like } from 'drizzle-orm';
import { openDatabase } from '../../src/database/database.ts';
import {
  diffDefaults,
  ensureDefaults,
  getDefaults,
  listDefaults,
  type NewDefaults,
  publishDefaults,
  setCurrentDefaults,
} from '../../src/defaults/defaults.ts';
import { defaultsVersion } from '../../src/defaults/table.ts';
import { unknownPaths } from '../../src/defaults/values.ts';
import { builtinVersions, compareVersions } from '../../src/defaults/versions.ts';
import { Refusal, type RefusalCode } from '../../src/errors.ts';
import { event } from '../../src/event/table.ts';
import { getJob } from '../../src/job/job.ts';
import { keyOf, submit } from '../../src/submission/submit.ts';
import { planJob } from '../../src/submission/plan.ts';
import { previewMigration } from '../../src/submission/trial.ts';
import { commit, type Store } from '../../src/live/commit.ts';
import { setPolicy } from '../../src/policy/policy.ts';
import { createProject } from '../../src/project/project.ts';
import { setAt } from '../../src/spec/resolve.ts';
import { skipUnless } from '../support/absent.ts';
import { createDatabase, startPostgres } from '../support/postgres.ts';
import { actor, newJob, openStore, testProject, type TestStore } from '../support/store.ts';

let store: TestStore;
before(async () => void (store = await openStore()));
after(() => store.close());
afterEach(async () => void (await use('v2.1')));

const [v21] = builtinVersions;
assert.ok(v21);
const all21 = { ...v21.documented, ...v21.platform };

/** The values of v2.1 with some changed, nested; undefined leaves a path out. */
function values(changes: Record<string, unknown> = {}): Record<string, unknown> {
  const nested: Record<string, unknown> = {};
  for (const [path, value] of Object.entries({ ...all21, ...changes })) {
    if (path === 'augmentation.probability') nested['augmentation'] = { probability: value };
    else if (value !== undefined) setAt(nested, path, value);
  }
  return nested;
}

function publish(version: string, more: Partial<NewDefaults> = {}, by = store.admin) {
  const input = { version, values: values(), notes: null, makeCurrent: false, ...more };
  return commit(store, (tx) => publishDefaults(tx, by, input));
}

function use(version: string, by = store.admin) {
  return commit(store, (tx) => setCurrentDefaults(tx, by, version));
}

function refused(code: RefusalCode, check: (refusal: Refusal) => void = () => {}) {
  return (error: unknown) => {
    assert.ok(error instanceof Refusal, String(error));
    assert.equal(error.code, code, error.message);
    check(error);
    return true;
  };
}

const least = { project_id: testProject, model: 'm', dataset: 'd' };
const preview = (spec: object = {}) =>
  planJob(store.database.db, store.admin, { spec: { ...least, ...spec }, at: ['spec'] });

suite('a version', () => {
  test('that is published is read back by path, and changes nothing for anybody', async () => {
    const made = await publish('v1.4', {
      values: values({ 'hyperparams.lr_scheduler': 'linear' }),
      notes: 'The old ones.',
    });
    assert.equal(made.isCurrent, false);
    assert.equal(made.publishedBy, store.admin.tokenId);
    assert.deepEqual(made.documented, { ...v21.documented, 'hyperparams.lr_scheduler': 'linear' });
    assert.deepEqual(made.platform, v21.platform);
    const { db } = store.database;
    assert.deepEqual(await getDefaults(db, 'v1.4'), made);
    assert.equal((await getDefaults(db, null))?.version, 'v2.1');
    assert.equal((await newJob(store)).defaultsVersion, 'v2.1');
    const pinned = await newJob(store, { defaults_version: 'v1.4' });
    assert.deepEqual((pinned.effective['hyperparams'] as Record<string, unknown>)['lr_scheduler'], 'linear');
    const [published] = await db.select().from(event).where(eq(event.type, 'DEFAULTS_PUBLISHED'));
    assert.deepEqual(
      [published?.actorId, published?.projectId, published?.data],
      [store.admin.tokenId, null, { version: 'v1.4', hash: made.hash }],
    );
  });

  test('published again is no second one; with anything else it is refused', async () => {
    const first = await publish('v1.5', { notes: 'n' });
    const again = await publish('v1.5', { notes: 'n' });
    assert.deepEqual(again, first);
    const others = [
      { notes: 'other' },
      { notes: 'n', values: values({ priority: 1 }) },
      { notes: 'n', makeCurrent: true },
    ];
    for (const other of others) await assert.rejects(publish('v1.5', other), refused('ALREADY_EXISTS'));
    assert.deepEqual(await getDefaults(store.database.db, 'v1.5'), first);
    const events = await store.database.db.$count(
      event,
      and(eq(event.type, 'DEFAULTS_PUBLISHED'), like(event.message, '%v1.5%')),
    );
    assert.equal(events, 1);
  });

  test('published by many at once is published once', async () => {
    const made = await Promise.all(Array.from({ length: 8 }, () => publish('v1.6', { makeCurrent: true })));
    assert.equal(new Set(made.map(({ publishedAt }) => publishedAt.getTime())).size, 1);
    assert.ok(made.every(({ isCurrent }) => isCurrent));
  });

  test('is refused with every problem at once: missing, unknown, out of range, of another type', async () => {
    const wrong = values({
      'hyperparams.batch_size': 0,
      'hyperparams.lr': 'fast',
      'hyperparams.epochs': undefined,
      'hyperparams.batch_sise': 8,
      'hyperparams.momentum': 0.9,
      on_cut: 'wait',
      model: 'bert',
      project_id: 'p-demo',
    });
    Object.assign(wrong, { logs: 5, 'hyperparams.lr_scheduler': 'cosine' });
    const attempt = publish('2.2', { values: wrong, notes: 'a\0b' });
    await assert.rejects(
      attempt,
      refused('INVALID_INPUT', ({ details: { issues = [] } }) => {
        const found = issues.map(({ code, specPath, path }) => `${code} ${specPath ?? path.join('.')}`).sort();
        assert.deepEqual(found, [
          'MALFORMED hyperparams.lr_scheduler',
          'MALFORMED input.version',
          'NOT_ALLOWED model',
          'NOT_ALLOWED on_cut',
          'NOT_ALLOWED project_id',
          'OUT_OF_RANGE hyperparams.batch_size',
          'OUT_OF_RANGE input.notes',
          'REQUIRED hyperparams.epochs',
          'REQUIRED logs.max_bytes',
          'UNKNOWN_FIELD hyperparams.batch_sise',
          'UNKNOWN_FIELD hyperparams.momentum',
          'WRONG_TYPE hyperparams.lr',
          'WRONG_TYPE logs',
        ]);
        const hint = (path: string) => issues.find(({ specPath }) => specPath === path)?.hint;
        assert.equal(hint('hyperparams.batch_sise'), 'Did you mean "hyperparams.batch_size"?');
        assert.match(hint('hyperparams.momentum') ?? '', /policy/);
        const place = issues.find(({ specPath }) => specPath === 'hyperparams.batch_size')?.path;
        assert.deepEqual(place, ['input', 'values', 'hyperparams', 'batch_size']);
      }),
    );
    assert.equal(await getDefaults(store.database.db, '2.2'), null);
  });

  test('holds no credential, in its values or its notes', async () => {
    const token = `ghp_${'a1B2c3D4e5F6'.repeat(3)}`;
    const input = { values: values({ 'resources.labels': [token] }), notes: `use ${token}` };
    await assert.rejects(
      publish('v9.8', input),
      refused('INVALID_INPUT', ({ message, details: { issues = [] } }) => {
        assert.deepEqual(
          issues.map(({ code, path }) => [code, path.slice(0, 2).join('.')]),
          [
            ['SECRET_LITERAL', 'input.notes'],
            ['SECRET_LITERAL', 'input.values'],
          ],
        );
        assert.ok(!JSON.stringify([message, issues]).includes(token));
      }),
    );
  });

  test('needs a value of each path of v2.1, each of which a job may say itself', async () => {
    assert.deepEqual(unknownPaths(v21), []);
    await assert.rejects(
      publish('v9.9', { values: {} }),
      refused('INVALID_INPUT', ({ details: { issues = [] } }) => {
        assert.deepEqual(
          issues.map(({ specPath }) => specPath),
          Object.keys(all21).sort(),
        );
      }),
    );
  });

  test('of any values is refused, or resolves every job', async () => {
    const json = fc.oneof(fc.integer(), fc.double(), fc.string(), fc.boolean(), fc.constant(null), fc.constant([]));
    const changes = fc.dictionary(fc.constantFrom(...Object.keys(all21), 'hyperparams.x', 'env', 'a.b'), json);
    let count = 0;
    await fc.assert(
      fc.asyncProperty(changes, async (given) => {
        const version = `v8.${++count}`;
        try {
          await publish(version, { values: values(given) });
        } catch (error) {
          assert.ok(error instanceof Refusal && error.code === 'INVALID_INPUT', String(error));
          return;
        }
        const plan = await preview({ defaults_version: version });
        assert.equal(plan.ready, true);
      }),
      { numRuns: 40 },
    );
  });

  test('is published and chosen by administrators of the platform only', async () => {
    const others = [actor(['ADMIN'], testProject), actor(['WRITE']), actor(['RUNNER'])];
    for (const other of others) {
      await assert.rejects(publish('v7.1', {}, other), refused('PERMISSION_DENIED'));
      await assert.rejects(use('v2.1', other), refused('PERMISSION_DENIED'));
    }
  });

  test('is listed in order of its number', async () => {
    for (const version of ['v2.10', 'v2.9-rc1', 'v2.9']) await publish(version);
    const listed = (await listDefaults(store.database.db)).map(({ version }) => version);
    assert.deepEqual(listed, [...listed].sort(compareVersions));
    const order = ['v1.4', 'v2.1', 'v2.9-rc1', 'v2.9', 'v2.10'];
    assert.deepEqual(
      listed.filter((version) => order.includes(version)),
      order,
    );
  });

  test('differs from another in the paths that differ', async () => {
    const { db } = store.database;
    const [from, to] = [await getDefaults(db, 'v1.4'), await getDefaults(db, 'v2.1')];
    assert.ok(from && to);
    assert.deepEqual(diffDefaults(from, to), [{ path: 'hyperparams.lr_scheduler', from: 'linear', to: 'cosine' }]);
    assert.deepEqual(diffDefaults(to, to), []);
  });
});

suite('the current version', () => {
  test('is moved by an act that is recorded, back too, and a repeat is no second one', async () => {
    const { db } = store.database;
    await publish('v3.0', { makeCurrent: true, values: values({ 'hyperparams.batch_size': 64 }) });
    assert.equal((await newJob(store)).defaultsVersion, 'v3.0');
    await use('v2.1');
    await use('v2.1');
    assert.equal((await newJob(store)).defaultsVersion, 'v2.1');
    const published = await db
      .select()
      .from(event)
      .where(and(eq(event.type, 'DEFAULTS_CHOSEN'), isNull(event.projectId), like(event.message, '%v3.0%')))
      .orderBy(event.time);
    assert.deepEqual(
      published.map(({ data, actorId }) => [data, actorId]),
      [
        [{ from: 'v2.1', to: 'v3.0' }, store.admin.tokenId],
        [{ from: 'v3.0', to: 'v2.1' }, store.admin.tokenId],
      ],
    );
    await assert.rejects(
      use('v3.l'),
      refused('NOT_FOUND', ({ details }) => assert.match(details.hint ?? '', /Did you mean "v3.0"/)),
    );
  });

  test('stays where it is when a build starts, an older or a newer one', async () => {
    await use('v3.0');
    await commit(store, (tx) => ensureDefaults(tx));
    const newer = { ...v21, version: 'v4.0', notes: null };
    await commit(store, (tx) => ensureDefaults(tx, [...builtinVersions, newer]));
    await commit(store, (tx) => ensureDefaults(tx));
    assert.equal((await getDefaults(store.database.db, null))?.version, 'v3.0');
  });

  test('of our name that an administrator published before stays theirs; ours changed stops the start', async () => {
    const { db } = store.database;
    await publish('v4.1', { values: values({ priority: 1 }) });
    await commit(store, (tx) => ensureDefaults(tx, [{ ...v21, version: 'v4.1' }]));
    assert.equal((await getDefaults(db, 'v4.1'))?.platform['priority'], 1);
    const changed = { ...v21, documented: { ...v21.documented, 'hyperparams.epochs': 6 } };
    await assert.rejects(
      commit(store, (tx) => ensureDefaults(tx, [changed])),
      /a version never changes/,
    );
  });

  test('with a path of a newer build resolves nothing here, rather than another job', async () => {
    const platform = { ...v21.platform, 'network.bandwidth': 9 };
    await store.database.db
      .insert(defaultsVersion)
      .values({ version: 'v5.0', documented: v21.documented, platform, hash: 'x', publishedBy: 'tok_x' });
    const isOld = refused('UNAVAILABLE', ({ message, retryable }) => {
      assert.match(message, /network.bandwidth, which this gateway is too old to know/);
      assert.equal(retryable, true);
    });
    await assert.rejects(newJob(store, { defaults_version: 'v5.0' }), isOld);
    await assert.rejects(preview({ defaults_version: 'v5.0' }), isOld);
    await assert.rejects(use('v5.0'), refused('INVALID_STATE'));
    assert.equal((await newJob(store)).defaultsVersion, 'v2.1');
  });
});

suite('moving a spec', () => {
  const wanted = ['hyperparams.batch_size', 'hyperparams.early_stopping.patience', 'hyperparams.lr_scheduler'];
  const migrate = async (spec: object, from: string, to = 'v2.1') => {
    const { db } = store.database;
    const target = await getDefaults(db, to);
    assert.ok(target);
    const versions = { from: await getDefaults(db, from), to: target };
    const items = await previewMigration(db, store.admin, { spec: { ...least, ...spec }, at: ['spec'] }, versions);
    return new Map(items.map(({ path, ...item }) => [path, item]));
  };

  test('from a version that nobody knows reports what is pinned and what may change, and invents nothing', async () => {
    const items = await migrate({ hyperparams: { batch_size: 16 }, defaults_version: 'v1.x' }, 'v1.x');
    assert.deepEqual(
      wanted.map((path) => items.get(path)),
      [
        { before: 16, after: 16, pinned: true, changes: false },
        { before: null, after: 5, pinned: false, changes: true },
        { before: null, after: 'cosine', pinned: false, changes: true },
      ],
    );
  });

  test('from a published version shows before and after', async () => {
    const items = await migrate({}, 'v1.4');
    assert.deepEqual(
      wanted.map((path) => items.get(path)),
      [
        { before: 32, after: 32, pinned: false, changes: false },
        { before: 5, after: 5, pinned: false, changes: false },
        { before: 'linear', after: 'cosine', pinned: false, changes: true },
      ],
    );
  });

  test("sees the project's policy, which the move does not touch", async () => {
    const rules = [{ path: 'hyperparams.lr_scheduler', default: 'step' }];
    const input = { projectId: testProject, rules, ifRevision: null };
    await commit(store, (tx) => setPolicy(tx, store.admin, input));
    const items = await migrate({}, 'v1.x');
    await commit(store, (tx) => setPolicy(tx, store.admin, { ...input, rules: [] }));
    assert.deepEqual(items.get('hyperparams.lr_scheduler'), {
      before: 'step',
      after: 'step',
      pinned: false,
      changes: false,
    });
  });

  test('with problems, or of a project that one may not see, is refused', async () => {
    await assert.rejects(migrate({ hyperparams: { lr: -1 } }, 'v1.4'), refused('BAD_USER_INPUT'));
    await assert.rejects(migrate({ project_id: 'p-none' }, 'v1.4'), refused('NOT_FOUND'));
  });
});

suite('a job', () => {
  test('submitted with the hash of its preview is what was previewed, or is refused with both hashes', async () => {
    const submitExpecting = (expectedSpecHash: string, key: string | null = null) => {
      const spec = { ...least, tags: ['t'] };
      const submission = { spec, at: ['input', 'spec'], expectedSpecHash };
      return submit(store, store.admin, submission, keyOf('submitJob', key, spec));
    };
    const { specHash } = await preview();
    assert.ok(specHash);
    const { job } = await submitExpecting(specHash, 'expected');
    assert.equal(job.specHash, specHash);
    await use('v3.0');
    const other = await preview();
    assert.notEqual(other.specHash, specHash);
    const isOther = refused('INVALID_STATE', ({ message, details }) => {
      assert.equal(message, `The spec resolves to ${other.specHash} now, not to "${specHash}".`);
      assert.equal(details.currentState, other.specHash);
    });
    await assert.rejects(submitExpecting(specHash), isOther);
    assert.equal(
      (await submitExpecting(specHash, 'expected')).job.id,
      job.id,
      'a repeat is the job that was previewed',
    );
    await assert.rejects(submitExpecting(String(other.specHash), 'expected'), refused('INVALID_STATE'));
  });

  test('keeps every value, whatever versions and policies come after it', async () => {
    const hyperparams = fc.record(
      { batch_size: fc.integer({ min: 1, max: 64 }), lr_scheduler: fc.constantFrom('cosine', 'linear') },
      { requiredKeys: [] },
    );
    const act = fc.oneof(
      fc.record({ kind: fc.constant('publish' as const), epochs: fc.integer({ min: 1, max: 99 }) }),
      fc.record({ kind: fc.constant('use' as const), version: fc.constantFrom('v1.4', 'v2.1', 'v3.0') }),
      fc.record({ kind: fc.constant('policy' as const), patience: fc.integer({ min: 1, max: 50 }) }),
    );
    let count = 0;
    await fc.assert(
      fc.asyncProperty(hyperparams, fc.array(act, { minLength: 1, maxLength: 4 }), async (given, acts) => {
        const before = await newJob(store, { hyperparams: given });
        for (const step of acts) {
          if (step.kind === 'use') await use(step.version);
          if (step.kind === 'publish') {
            const changed = values({ 'hyperparams.epochs': step.epochs });
            await publish(`v6.${++count}`, { values: changed, makeCurrent: true });
          }
          if (step.kind !== 'policy') continue;
          const rules = [{ path: 'hyperparams.early_stopping.patience', default: step.patience }];
          await commit(store, (tx) => setPolicy(tx, store.admin, { projectId: testProject, rules, ifRevision: null }));
        }
        const now = await getJob(store.database.db, store.admin, before.id);
        assert.deepEqual(now, before);
      }),
      { numRuns: 15 },
    );
    const clean = { projectId: testProject, rules: [], ifRevision: null };
    await commit(store, (tx) => setPolicy(tx, store.admin, clean));
  });
});

suite('two gateways on one database', skipUnless('postgres'), () => {
  test('give one hash to all unpinned jobs of a version, also while a new one becomes current', async () => {
    const server = await startPostgres();
    const { url } = await createDatabase(server);
    const databases = [await openDatabase({ url, dataDir: '' }), await openDatabase({ url, dataDir: '' })];
    try {
      const [old, fresh] = databases.map((database): Store => ({ database, bus: store.bus }));
      assert.ok(old && fresh);
      await commit(old, async (tx) => {
        await ensureDefaults(tx);
        await createProject(tx, store.admin, { id: testProject, command: ['true'] });
      });
      const submitOne = async (through: Store) => (await submit(through, store.admin, { spec: least, at: [] })).job;
      const first = await Promise.all([old, fresh].map(submitOne));
      // Those that come in one turn share a reading: all of them may come before the new version, or after it.
      const submits = Array.from({ length: 200 }, async (_, index) => {
        if (index === 100) {
          const changed = values({ 'hyperparams.batch_size': 64, 'hyperparams.lr_scheduler': 'linear' });
          const input = { version: 'v2.2', values: changed, notes: null, makeCurrent: true };
          await commit(fresh, (tx) => publishDefaults(tx, store.admin, input));
        }
        return submitOne(index % 2 ? old : fresh);
      });
      const jobs = await Promise.all(submits);
      const last = await Promise.all([old, fresh].map((through) => newJob({ ...store, database: through.database })));
      const hashes = Map.groupBy([...first, ...jobs, ...last], ({ defaultsVersion: version }) => version);
      const seen = [...hashes].map(([version, jobs]) => [version, new Set(jobs.map(({ specHash }) => specHash)).size]);
      assert.deepEqual(Object.fromEntries(seen), { 'v2.1': 1, 'v2.2': 1 });
      assert.notEqual(hashes.get('v2.1')?.[0]?.specHash, hashes.get('v2.2')?.[0]?.specHash);
      assert.deepEqual(
        last.map((job) => job.defaultsVersion),
        ['v2.2', 'v2.2'],
      );
      await commit(old, (tx) => ensureDefaults(tx)); // the older build starts again
      assert.equal((await getDefaults(fresh.database.db, null))?.version, 'v2.2');
    } finally {
      for (const database of databases) await database.close();
      await server.stop();
    }
  });
});
