// Secrets: encrypted at rest and bound to their place, given to the runner that claims a job and to nobody else. On real
// Postgres where there is one.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { inspect } from 'node:util';
import { eq, sql } from 'drizzle-orm';
import fc from 'fast-check';
import { claimJob } from '../../src/attempt/claim.ts';
import { ConfigError, readConfig, type SecretKey } from '../../src/config.ts';
import { Refusal } from '../../src/errors.ts';
import { event } from '../../src/event/table.ts';
import { loadJobs } from '../../src/job/job.ts';
import { planJob } from '../../src/submission/plan.ts';
import { commit } from '../../src/live/commit.ts';
import { createProject, updateProject } from '../../src/project/project.ts';
import type { Runner } from '../../src/runner/runner.ts';
import { open, seal } from '../../src/secret/cipher.ts';
import { deleteSecret, getSecretById, listSecrets, setSecret } from '../../src/secret/secret.ts';
import { secret } from '../../src/secret/table.ts';
import { newSecretKeys } from '../support/secret-keys.ts';
import { actor, newJob, newRunner, openStore, testProject, type TestStore } from '../support/store.ts';

const keysOf = (text: string) => readConfig({ ASTRAML_SECRET_KEYS: text }).secretKeys;
const texts = { k1: newSecretKeys('k1'), k2: newSecretKeys('k2') };
const k1 = keysOf(texts.k1);
const k2 = keysOf(texts.k2);
const rotated = keysOf(`${texts.k2},${texts.k1}`);
const canary = 'canary-Zq7pL2vX9wT4';
const other = 'p-other';

let store: TestStore;
let runner: Runner;
before(async () => {
  store = await openStore();
  runner = await newRunner(store);
  await commit(store, (tx) => createProject(tx, store.admin, { id: other, command: ['true'] }));
});
after(() => store.close());

function set(name: string, value: string, { keys = k1, by = store.admin, projectId = testProject } = {}) {
  return commit(store, (tx) => setSecret(tx, by, { projectId, name, value }, keys));
}

function remove(name: string, by = store.admin) {
  return commit(store, (tx) => deleteSecret(tx, by, { projectId: testProject, name }));
}

function claim(keys: readonly SecretKey[] = k1, requestId = randomBytes(8).toString('hex')) {
  const request = { runnerId: runner.id, freeGpus: [0], requestId, waitSeconds: 0 };
  return commit(store, (tx) => claimJob(tx, store.runnerActor, request, 30, keys));
}

/** A job without GPUs, so that those that run do not stand in the way of the next. */
const using = (...names: string[]) => ({
  resources: { gpus: 0 },
  env: names.map((name) => ({ name: `MY_${name}`, from: { secret: name } })),
});

async function jobNow(id: string) {
  return (await loadJobs(store.database.db, [id])).get(id) ?? assert.fail();
}

async function refusal(work: Promise<unknown>): Promise<Refusal> {
  const error = await work.then(
    () => assert.fail('it was not refused'),
    (caught: unknown) => caught,
  );
  return error instanceof Refusal ? error : assert.fail(String(error));
}

suite('a sealed value', () => {
  const place = { projectId: 'p-a', name: 'TOKEN', version: 1 };
  const [key] = k1;
  if (!key) throw new Error('no key');

  test('opens with its key at its place, whatever it holds', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'grapheme' }), (value) => {
        assert.deepEqual(open(rotated, place, seal(key, place, value)), { value });
      }),
      { numRuns: 50 },
    );
  });

  test('has a data key and nonces of its own each time, and shows nothing of the value', () => {
    const [first, second] = [seal(key, place, canary), seal(key, place, canary)];
    for (const part of ['wrappedKey', 'sealedValue'] as const) {
      assert.notDeepEqual(first[part], second[part]);
      assert.notDeepEqual(first[part].subarray(0, 12), second[part].subarray(0, 12));
      assert.equal(first[part].includes(canary), false);
    }
    assert.equal(first.wrappedKey.length, 12 + 32 + 16);
    assert.equal(first.sealedValue.length, 12 + Buffer.byteLength(canary) + 16);
  });

  test('does not open at another project, name or version, nor under another key id', () => {
    const sealed = seal(key, place, canary);
    const elsewhere = [
      { ...place, projectId: 'p-b' },
      { ...place, name: 'TOKEN2' },
      { ...place, version: 2 },
    ];
    for (const wrong of elsewhere) assert.deepEqual(open(k1, wrong, sealed), { problem: 'DAMAGED' });
    const renamed = [{ ...key, id: 'k9' }];
    assert.deepEqual(open(renamed, place, { ...sealed, keyId: 'k9' }), { problem: 'DAMAGED' });
    assert.deepEqual(open(k1, place, { ...sealed, keyId: 'k9' }), { problem: 'KEY_MISSING' });
  });

  test('does not open when any byte was changed or cut off, or its parts were mixed with those of another', () => {
    const sealed = seal(key, place, canary);
    const another = seal(key, place, canary);
    for (const part of ['wrappedKey', 'sealedValue'] as const) {
      const whole = sealed[part];
      for (let index = 0; index < whole.length; index++) {
        const changed = Buffer.from(whole);
        changed[index] = (changed[index] ?? 0) ^ 1;
        assert.deepEqual(open(k1, place, { ...sealed, [part]: changed }), { problem: 'DAMAGED' });
      }
      for (const length of [0, 11, 27, whole.length - 1]) {
        assert.deepEqual(open(k1, place, { ...sealed, [part]: whole.subarray(0, length) }), { problem: 'DAMAGED' });
      }
      assert.deepEqual(open(k1, place, { ...sealed, [part]: another[part] }), { problem: 'DAMAGED' });
    }
    const swapped = { ...sealed, wrappedKey: sealed.sealedValue, sealedValue: sealed.wrappedKey };
    assert.deepEqual(open(k1, place, swapped), { problem: 'DAMAGED' });
  });

  test('does not open with another key of the same id', () => {
    assert.deepEqual(open(keysOf(newSecretKeys('k1')), place, seal(key, place, canary)), { problem: 'DAMAGED' });
  });
});

suite('ASTRAML_SECRET_KEYS', () => {
  test('takes several keys in order, and shows none of them', () => {
    assert.deepEqual(
      rotated.map(({ id }) => id),
      ['k2', 'k1'],
    );
    assert.equal(inspect(rotated, { depth: 9 }).includes(texts.k1.slice(3, 20)), false);
    assert.equal(JSON.stringify(rotated).includes(texts.k1.slice(3, 20)), false);
    assert.deepEqual(keysOf(''), []);
  });

  test('that is wrong is refused with what to do, without the key', () => {
    const short = `k1:${randomBytes(31).toString('base64')}`;
    const wrong: [string, RegExp][] = [
      [short, /key 1 is not id:base64 of 32 bytes; `openssl rand -base64 32` makes one/],
      [texts.k1.slice(3), /key 1 is not/],
      [`${texts.k1},${canary}`, /key 2 is not/],
      [`${texts.k1},k1:${texts.k2.slice(3)}`, /two keys have the id k1/],
    ];
    for (const [text, message] of wrong) {
      assert.throws(
        () => keysOf(text),
        (error) => {
          assert.ok(error instanceof ConfigError);
          assert.match(error.message, message);
          for (const part of text.split(/[:,]/).filter((word) => word.length > 10)) {
            assert.equal(error.message.includes(part), false);
          }
          return true;
        },
      );
    }
  });
});

suite('setting a secret', () => {
  test('makes a new version each time, also with the value that it has, each with an event without the value', async () => {
    const first = await set('SET_TWICE', canary);
    const second = await set('SET_TWICE', canary);
    assert.deepEqual([first.version, second.version, second.id], [1, 2, first.id]);
    assert.equal(second.lastUsedAt, null);
    const events = await store.database.db.select().from(event).where(eq(event.type, 'SECRET_SET'));
    const mine = events.filter(({ message }) => message.includes('SET_TWICE'));
    assert.deepEqual(
      mine.map(({ projectId, actorId, message, data }) => [projectId, actorId, message, data]),
      [1, 2].map((version) => [
        testProject,
        store.admin.tokenId,
        `Secret SET_TWICE was set: version ${version}.`,
        { name: 'SET_TWICE', version },
      ]),
    );
  });

  test('ten times at once makes ten versions', async () => {
    const all = await Promise.all(Array.from({ length: 10 }, (_, n) => set('AT_ONCE', `value ${n}`)));
    assert.deepEqual(
      all.map(({ version }) => version).sort((a, b) => a - b),
      [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    );
  });

  test('takes 1 byte to 64 KiB, counted in UTF-8', async () => {
    await set('ONE', 'x');
    await set('MOST', 'é'.repeat(32_768));
    const tooLong = await refusal(set('MOST', `${'é'.repeat(32_768)}x`));
    assert.match(tooLong.message, /value has 65537 bytes; 65536 are the most/);
    assert.match((await refusal(set('NONE', ''))).message, /value is empty/);
  });

  test('refuses names and values that no variable can have, all at once, and says nothing of the value', async () => {
    const both = await refusal(set('hf-token', `${canary}\0`));
    assert.deepEqual(
      both.details.issues?.map(({ code, path, hint }) => [code, path, hint]),
      [
        ['MALFORMED', ['input', 'name'], 'For example HF_TOKEN.'],
        ['MALFORMED', ['input', 'value'], 'Encode bytes as text first, e.g. with base64.'],
      ],
    );
    assert.equal(JSON.stringify([both.message, both.details]).includes(canary), false);
    for (const name of ['', '1A', '_A', 'Ä', 'A B', 'A\n', 'A'.repeat(101), 'a']) {
      assert.equal((await refusal(set(name, 'v'))).code, 'INVALID_INPUT', name);
    }
  });

  test('needs ADMIN, and a key', async () => {
    const denied = await refusal(set('X', 'v', { by: actor(['WRITE'], testProject) }));
    assert.deepEqual([denied.code, denied.details.requiredScope], ['PERMISSION_DENIED', 'ADMIN']);
    assert.equal((await refusal(set('X', 'v', { by: actor(['ADMIN'], other) }))).code, 'NOT_FOUND');
    assert.equal((await refusal(set('X', 'v', { projectId: 'p-none' }))).code, 'NOT_FOUND');
    const keyless = await refusal(set('X', 'v', { keys: [] }));
    assert.equal(keyless.code, 'INVALID_STATE');
    assert.match(keyless.details.hint ?? '', /ASTRAML_SECRET_KEYS.*openssl rand -base64 32/);
  });
});

test('an archived project keeps its secrets as they are', async () => {
  const id = 'p-archived';
  await commit(store, (tx) => createProject(tx, store.admin, { id, command: ['true'] }));
  await set('KEPT', 'v', { projectId: id });
  await commit(store, (tx) => updateProject(tx, store.admin, { id, archived: true }));
  const both = [
    () => set('KEPT', 'w', { projectId: id }),
    () => commit(store, (tx) => deleteSecret(tx, store.admin, { projectId: id, name: 'KEPT' })),
  ];
  for (const work of both) assert.equal((await refusal(work())).details.currentState, 'ARCHIVED');
  assert.equal((await listSecrets(store.database.db, id))[0]?.version, 1);
});

suite('a secret', () => {
  test('is encrypted in every column that the database has of it', async () => {
    await set('AT_REST', canary);
    const { db } = store.database;
    const tables = await db.execute<{ name: string }>(
      sql`select table_name as name from information_schema.tables where table_schema = 'public'`,
    );
    const found = async (text: string) => {
      const counts = tables.map(async ({ name }) => {
        const [row] = await db.execute<{ n: number }>(
          sql`select count(*)::int as n from ${sql.identifier(name)} as t
              where position(${text} in t::text) > 0
                 or position(${Buffer.from(text).toString('hex')} in t::text) > 0`,
        );
        return [name, row?.n ?? 0] as const;
      });
      return (await Promise.all(counts)).filter(([, count]) => count > 0).map(([name]) => name);
    };
    assert.deepEqual((await found('AT_REST')).sort(), ['event', 'secret']);
    assert.deepEqual(await found(canary), []);
  });

  test('is seen by those who may submit jobs of its project, without what is encrypted', async () => {
    const { id } = await set('SEEN', canary);
    const { db } = store.database;
    const listed = await listSecrets(db, testProject);
    const names = listed.map(({ name }) => name);
    assert.deepEqual(names, [...names].sort());
    const seen = await getSecretById(db, actor(['WRITE'], testProject), id);
    assert.deepEqual(Object.keys(seen ?? {}).sort(), [
      'createdAt',
      'id',
      'lastUsedAt',
      'name',
      'projectId',
      'updatedAt',
      'version',
    ]);
    for (const by of [actor(['READ'], testProject), actor(['ADMIN'], other), actor(['RUNNER'])]) {
      assert.equal(await getSecretById(db, by, id), null);
    }
    assert.deepEqual(await listSecrets(db, other), []);
  });

  test('that is deleted is gone, with an event; one of that name made later is another', async () => {
    const first = await set('GONE', 'v');
    assert.equal(await remove('GONE'), first.id);
    assert.equal(await store.database.db.$count(secret, eq(secret.id, first.id)), 0);
    const [deleted] = await store.database.db.select().from(event).where(eq(event.type, 'SECRET_DELETED'));
    assert.deepEqual([deleted?.message, deleted?.actorId], ['Secret GONE was deleted.', store.admin.tokenId]);
    const again = await set('GONE', 'v');
    assert.equal(again.version, 1);
    assert.notEqual(again.id, first.id);
  });

  test('that does not exist is not deleted, and the closest name is told; nor is one deleted without ADMIN', async () => {
    await set('HF_TOKEN', 'v');
    const missing = await refusal(remove('HF_TOKN'));
    assert.deepEqual([missing.code, missing.details.hint], ['NOT_FOUND', 'Did you mean "HF_TOKEN"?']);
    assert.equal((await refusal(remove('HF_TOKEN', actor(['WRITE'], testProject)))).code, 'PERMISSION_DENIED');
  });
});

suite('a job', () => {
  test('that names a secret which its project lacks is refused with place and hint', async () => {
    await set('WANDB_KEY', 'v');
    await set('THEIRS', 'v', { projectId: other });
    const env = [
      { name: 'A', from: { secret: 'WANDB_KEY' } },
      { name: 'B', from: { secret: 'WANDB_KYE' } },
      { name: 'C', from: { secret: 'THEIRS' } },
      { name: 'D', from: { secret: 'hf_jvwoeWEFIJvweoij' } },
    ];
    const { details } = await refusal(newJob(store, { env }));
    const setFirst = 'An administrator of the project sets it first: setSecret, or astraml secrets set.';
    assert.deepEqual(details.issues, [
      {
        code: 'UNKNOWN_SECRET',
        path: ['input', 'spec', 'env', '1', 'from', 'secret'],
        specPath: 'env.1.from.secret',
        message: 'Project p-test has no secret WANDB_KYE.',
        hint: 'Did you mean "WANDB_KEY"?',
      },
      {
        code: 'UNKNOWN_SECRET',
        path: ['input', 'spec', 'env', '2', 'from', 'secret'],
        specPath: 'env.2.from.secret',
        message: 'Project p-test has no secret THEIRS.',
        hint: setFirst,
      },
      {
        code: 'UNKNOWN_SECRET',
        path: ['input', 'spec', 'env', '3', 'from', 'secret'],
        specPath: 'env.3.from.secret',
        message: 'env.3.from.secret names no secret of project p-test.', // it may be the value itself
        hint: setFirst,
      },
    ]);
  });

  test('says of each variable either a value or a secret', async () => {
    for (const [from, code] of [
      [{}, 'REQUIRED'],
      [{ value: 'v', secret: 'WANDB_KEY' }, 'NOT_ALLOWED'],
    ] as const) {
      const { details } = await refusal(newJob(store, { env: [{ name: 'A', from }] }));
      const [issue, ...more] = details.issues ?? [];
      assert.deepEqual([issue?.code, issue?.specPath, more], [code, 'env.0.from', []]);
    }
    await newJob(store, { env: [{ name: 'A', from: { value: null, secret: 'WANDB_KEY' } }] });
    assert.ok(await claim());
  });

  test('has the names of its secrets in its hash, not their versions', async () => {
    const hashOf = async (...names: string[]) => {
      const sent = { project_id: testProject, model: 'm', dataset: 'd' };
      const env = names.map((name) => ({ name: 'A', from: { secret: name } }));
      return (await planJob(store.database.db, store.admin, { spec: { ...sent, env }, at: [] })).specHash;
    };
    const first = await hashOf('WANDB_KEY');
    await set('WANDB_KEY', 'another');
    assert.ok(first);
    assert.equal(await hashOf('WANDB_KEY'), first);
    assert.notEqual(await hashOf('HF_TOKEN'), first);
  });

  test('gets the values of its own project in the answer to the claim, which notes the use', async () => {
    await set('SHARED', 'mine');
    await set('SHARED', 'theirs', { projectId: other });
    const literal = { name: 'PLAIN', from: { value: 'plain' } };
    const { env } = using('SHARED');
    await newJob(store, { resources: { gpus: 0 }, env: [literal, ...env] });
    const assignment = await claim();
    assert.deepEqual(assignment?.env, { PLAIN: 'plain', MY_SHARED: 'mine' });
    assert.deepEqual(assignment?.secretEnv, ['MY_SHARED']);
    assert.equal(JSON.stringify(assignment?.spec).includes('"mine"'), false);
    const used = async (projectId: string) =>
      (await listSecrets(store.database.db, projectId)).find(({ name }) => name === 'SHARED')?.lastUsedAt;
    assert.ok(await used(testProject));
    assert.equal(await used(other), null);
  });

  test('gets the value that is set when it starts; a repeated claim gets it again', async () => {
    await set('LATE', 'old');
    await newJob(store, using('LATE'));
    await set('LATE', 'new');
    const first = await claim(k1, 'repeated');
    assert.deepEqual(first?.env, { MY_LATE: 'new' });
    assert.deepEqual(await claim(k1, 'repeated'), first);
  });
});

suite('a job that cannot have its secret', () => {
  async function failsToStart(id: string, message: RegExp, hint: RegExp) {
    const job = await jobNow(id);
    assert.deepEqual([job.state, job.reasonCode], ['FAILED', 'COMMAND_NOT_STARTED']);
    assert.match(job.reasonMessage ?? '', message);
    assert.match(job.reasonHint ?? '', hint);
    const types = await store.database.db.select().from(event).where(eq(event.jobId, id)).orderBy(event.seq);
    assert.deepEqual(
      types.map(({ type, toState }) => toState ?? type),
      ['SUBMITTED', 'STARTING', 'ATTEMPT_STARTED', 'ATTEMPT_FINISHED', 'FAILED'],
    );
  }

  test('because it was deleted fails, naming it; the same claim gets the next job', async () => {
    await set('DELETED', canary);
    await set('KEPT', 'v');
    const { id } = await newJob(store, { ...using('KEPT', 'DELETED'), max_retries: 2 });
    const next = await newJob(store, using('KEPT'));
    await remove('DELETED');
    assert.equal(await claim(k1, 'one request'), null);
    await failsToStart(id, /could not be started: Secret DELETED was deleted\./, /Set DELETED again/);
    assert.equal((await claim(k1, 'one request'))?.job.id, next.id);
    assert.equal(await claim(), null);
  });

  test('because its key was removed fails, naming key and secret', async () => {
    await set('SEALED', canary);
    const { id } = await newJob(store, using('SEALED'));
    assert.equal(await claim(k2), null);
    await failsToStart(
      id,
      /Secret SEALED is encrypted with key k1, which the gateway does not have/,
      /Put key k1 back into ASTRAML_SECRET_KEYS, or set SEALED again/,
    );
    const again = await newJob(store, using('SEALED'));
    assert.equal(await claim(keysOf(newSecretKeys('k1'))), null); // another key under the same id
    await failsToStart(again.id, /Secret SEALED does not open with key k1/, /Check key k1/);
  });

  test('when its claim is repeated ends like that too', async () => {
    await set('BRIEF', canary);
    const { id } = await newJob(store, using('BRIEF'));
    assert.ok(await claim(k1, 'lost answer'));
    await remove('BRIEF');
    assert.equal(await claim(k1, 'lost answer'), null);
    await failsToStart(id, /Secret BRIEF was deleted/, /Set BRIEF again/);
  });
});

suite('a new first key', () => {
  test('encrypts what is set from then on, and what was set before still opens', async () => {
    await set('OLD', 'by k1');
    await set('NEW', 'by k2', { keys: rotated });
    const ids = await store.database.db
      .select({ name: secret.name, keyId: secret.keyId })
      .from(secret)
      .where(sql`${secret.name} in ('OLD', 'NEW')`);
    assert.deepEqual(Object.fromEntries(ids.map(({ name, keyId }) => [name, keyId])), { OLD: 'k1', NEW: 'k2' });
    await newJob(store, using('OLD', 'NEW'));
    assert.deepEqual((await claim(rotated))?.env, { MY_OLD: 'by k1', MY_NEW: 'by k2' });
    await set('OLD', 'again', { keys: rotated });
    await newJob(store, using('OLD', 'NEW'));
    assert.deepEqual((await claim(k2))?.env, { MY_OLD: 'again', MY_NEW: 'by k2' }); // k1 may go
  });
});
