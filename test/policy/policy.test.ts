// Policies: revisions without a gap, rules checked whole, and jobs that get what the request says, else the policy, else
// the defaults, and are refused exactly when a rule is violated. On real Postgres where there is one.
import assert from 'node:assert/strict';
import { after, before, beforeEach, suite, test } from 'node:test';
import fc from 'fast-check';
import { and, eq, sql } from 'drizzle-orm';
import { type PolicyRule, Refusal, type RefusalCode } from '../../src/errors.ts';
import { event } from '../../src/event/table.ts';
import { keyOf, submit as submitJob, submitWithin } from '../../src/submission/submit.ts';
import { planJob } from '../../src/submission/plan.ts';
import { listRefused } from '../../src/submission/trial.ts';
import { job } from '../../src/job/table.ts';
import { commit } from '../../src/live/commit.ts';
import { brokenLimits, checkRules } from '../../src/policy/check.ts';
import {
  getCurrentPolicy,
  getPolicy,
  getPolicyById,
  listPolicies,
  loadPolicies,
  type Policy,
  setPolicy,
  tryPolicy,
} from '../../src/policy/policy.ts';
import { policy } from '../../src/policy/table.ts';
import { readRules, type RuleInput } from '../../src/policy/rule.ts';
import { createProject, getProject, type Project } from '../../src/project/project.ts';
import { defaultsLayer } from '../../src/defaults/defaults.ts';
import { builtinVersions } from '../../src/defaults/versions.ts';
import { layerOf, resolve } from '../../src/spec/resolve.ts';
import { parseSpec } from '../../src/spec/spec.ts';
import { policyLayer } from '../../src/policy/policy.ts';
import { skipUnless } from '../support/absent.ts';
import { actor, openStore, type TestStore } from '../support/store.ts';

let store: TestStore;
let project: Project;
let count = 0;
before(async () => void (store = await openStore()));
after(() => store.close());
// A project of its own for each test: policies last.
beforeEach(async () => {
  const id = `p-policy-${++count}`;
  project = await commit(store, (tx) => createProject(tx, store.admin, { id, command: ['true'] }));
});

function set(rules: RuleInput[], ifRevision: number | null = null, by = store.admin): Promise<Policy> {
  return commit(store, (tx) => setPolicy(tx, by, { projectId: project.id, rules, ifRevision }));
}

const at = ['input', 'spec'];
function submit(spec: object, key: string | null = null) {
  const sent = { project_id: project.id, model: 'm', dataset: 'd', ...spec };
  return submitJob(store, store.admin, { spec: sent, at }, keyOf('submitJob', key, sent));
}

function refused(code: RefusalCode, check: (refusal: Refusal) => void = () => {}) {
  return (error: unknown) => {
    assert.ok(error instanceof Refusal, String(error));
    assert.equal(error.code, code, error.message);
    check(error);
    return true;
  };
}

/** Problems of rules as `CODE path`, with their messages and hints. */
async function problemsOf(rules: RuleInput[]): Promise<{ places: string[]; messages: string }> {
  try {
    await readRules(rules, ['input', 'rules']);
    return { places: [], messages: '' };
  } catch (error) {
    assert.ok(error instanceof Refusal && error.code === 'INVALID_INPUT', String(error));
    const issues = error.details.issues ?? [];
    const places = issues.map(({ code, path }) => `${code} ${path.join('.')}`);
    return { places, messages: issues.map(({ message, hint }) => `${message} ${hint ?? ''}`).join('\n') };
  }
}

suite('a policy', () => {
  test('of a new project is revision 0, empty, made with the project', async () => {
    const empty = await getCurrentPolicy(store.database.db, project);
    assert.deepEqual(empty, {
      id: `pol_${project.id}_0`,
      projectId: project.id,
      revision: 0,
      rules: [],
      createdAt: project.createdAt,
      createdBy: null,
    });
    assert.deepEqual(await getPolicyById(store.database.db, store.admin, empty.id), empty);
  });

  test('that is set has the next revision, an event, and its rules by path; earlier ones stay', async () => {
    const first = await set([{ path: 'priority', max: 5 }]);
    const second = await set(
      [
        { path: 'priority', max: 3 },
        { path: 'hyperparams.epochs', default: 2 },
      ],
      1,
    );
    assert.deepEqual([first.revision, second.revision], [1, 2]);
    assert.deepEqual(
      second.rules.map((rule) => rule.path),
      ['hyperparams.epochs', 'priority'],
    );
    assert.deepEqual(second.rules[0], {
      path: 'hyperparams.epochs',
      hasDefault: true,
      default: 2,
      min: null,
      max: null,
      allowed: null,
      required: false,
      enforcement: 'DENY',
      message: null,
    });
    assert.equal(second.createdBy, store.admin.tokenId);
    const { db } = store.database;
    assert.deepEqual(await getPolicy(db, project, 1), first);
    assert.deepEqual(await getPolicy(db, project, null), second);
    assert.equal(await getPolicy(db, project, 3), null);
    assert.equal(await getPolicy(db, project, -1), null);
    const ids = [first.id, second.id, `pol_${project.id}_0`, `pol_${project.id}_9`, 'pol_x', 'pol_p-none_1'];
    assert.deepEqual([...(await loadPolicies(db, ids)).keys()].sort(), ids.slice(0, 3).sort());
    const events = await db
      .select()
      .from(event)
      .where(and(eq(event.projectId, project.id), eq(event.type, 'POLICY_SET')))
      .orderBy(event.time);
    assert.deepEqual(
      events.map(({ actorId, data, message }) => [actorId, data, message]),
      [
        [store.admin.tokenId, { revision: 1 }, 'The policy was set: revision 1, 1 rule.'],
        [store.admin.tokenId, { revision: 2 }, 'The policy was set: revision 2, 2 rules.'],
      ],
    );
  });

  test('set to the rules in force makes no new revision, in any order of rules', async () => {
    const rules = [
      { path: 'priority', max: 5 },
      { path: 'model', allowed: ['m', 'n'] },
    ];
    const first = await set(rules, 0);
    assert.deepEqual(await set(rules.toReversed(), 1), first);
    assert.deepEqual(await set(rules, 0), first, 'the answer was lost, the caller asks again');
    assert.equal((await set([])).revision, 2, 'no rules are a change too');
  });

  test('changed by somebody else meanwhile is not overwritten', async () => {
    await set([{ path: 'priority', max: 5 }]);
    const stale = set([{ path: 'priority', max: 6 }], 0);
    await assert.rejects(
      stale,
      refused('INVALID_STATE', ({ details, message }) => {
        assert.equal(details.currentState, 'revision 1');
        assert.deepEqual(details.path, ['input', 'ifRevision']);
        assert.match(message, /revision 1, not at 0/);
      }),
    );
    await assert.rejects(set([], 2), refused('INVALID_STATE'));
    const other = actor(['ADMIN'], project.id, 'tok_other');
    await assert.rejects(set([{ path: 'priority', max: 5 }], 0, other), refused('INVALID_STATE'));
  });

  test('set by many at once has revisions without a gap, and of one revision only one wins', async () => {
    const free = await Promise.all(Array.from({ length: 12 }, (_, n) => set([{ path: 'priority', max: n }])));
    assert.deepEqual(
      free.map((made) => made.revision).sort((a, b) => a - b),
      Array.from({ length: 12 }, (_, n) => n + 1),
    );
    const tied = await Promise.allSettled(Array.from({ length: 6 }, (_, n) => set([{ path: 'priority', min: n }], 12)));
    assert.equal(tied.filter(({ status }) => status === 'fulfilled').length, 1);
    assert.equal((await getCurrentPolicy(store.database.db, project)).revision, 13);
  });

  test('is listed newest first, down to the empty one, in pages', async () => {
    for (let max = 1; max <= 4; max++) await set([{ path: 'priority', max }]);
    const pages: number[][] = [];
    let before: number | undefined;
    for (;;) {
      const rows = await listPolicies(store.database.db, project, { limit: 2, before });
      pages.push(rows.slice(0, 2).map(({ revision }) => revision));
      if (rows.length <= 2) break;
      before = rows[1]?.revision;
    }
    assert.deepEqual(pages, [[4, 3], [2, 1], [0]]);
    assert.deepEqual(await listPolicies(store.database.db, project, { limit: 2, before: 0 }), []);
  });

  test('is set by administrators of its project only, and seen by those who see the project', async () => {
    const rules = [{ path: 'priority', max: 5 }];
    await assert.rejects(set(rules, null, actor(['WRITE'], project.id)), refused('PERMISSION_DENIED'));
    await assert.rejects(set(rules, null, actor(['ADMIN'], 'p-other')), refused('NOT_FOUND'));
    const { id } = await set(rules, null, actor(['ADMIN'], project.id));
    assert.equal(await getPolicyById(store.database.db, actor(['ADMIN'], 'p-other'), id), null);
    assert.equal((await getPolicyById(store.database.db, actor(['READ'], project.id), id))?.id, id);
    const missing = commit(store, (tx) => setPolicy(tx, store.admin, { projectId: 'p-none', rules, ifRevision: null }));
    await assert.rejects(missing, refused('NOT_FOUND'));
  });
});

suite('rules', () => {
  test('are refused with every problem at once, each at its place', async () => {
    const { places, messages } = await problemsOf([
      { path: 'hyperparams.epochs', min: 5, max: 2 },
      { path: 'epochs', max: 2 },
      { path: 'hyperparams.lr_scheduler', min: 1 },
      { path: 'hyperparams.batch_size', default: 1.5, max: 0 },
      { path: 'resources.gpus', default: 4, max: 2, allowed: [1, 2] },
      { path: 'resources.gpu_model', allowed: [] },
      { path: 'hyperparams.early_stopping.goal', allowed: ['MINIMISE', null] },
      { path: 'hyperparams.epochs', required: true },
      { path: 'tags', required: true },
      { path: 'model', default: 'm' },
      { path: 'timeout_seconds', default: null },
      { path: 'priority', message: '' },
      { path: 'hyperparams.early_stopping.patiense', required: true },
    ]);
    assert.deepEqual(places, [
      'OUT_OF_RANGE input.rules.0.min',
      'NOT_ALLOWED input.rules.1.path',
      'NOT_ALLOWED input.rules.2.min',
      'NOT_ALLOWED input.rules.3.default',
      'OUT_OF_RANGE input.rules.4.default',
      'OUT_OF_RANGE input.rules.5.allowed',
      'NOT_ALLOWED input.rules.6.allowed.0',
      'NOT_ALLOWED input.rules.6.allowed.1',
      'NOT_ALLOWED input.rules.7.path',
      'NOT_ALLOWED input.rules.8.path',
      'NOT_ALLOWED input.rules.9.default',
      'NOT_ALLOWED input.rules.10.default',
      'OUT_OF_RANGE input.rules.11.message',
      'REQUIRED input.rules.11.path',
      'NOT_ALLOWED input.rules.12.path',
    ]);
    assert.match(messages, /Did you mean "hyperparams.epochs"/);
    assert.match(messages, /tags belongs to each job/);
    assert.match(messages, /Did you mean "hyperparams.early_stopping.patience"/);
    assert.match(messages, /its own max and allowed forbids/);
  });

  test('are bounded in number and size', async () => {
    const many = Array.from({ length: 201 }, (_, n) => ({ path: `hyperparams.x${n}`, max: n }));
    assert.deepEqual((await problemsOf(many)).places, ['OUT_OF_RANGE input.rules']);
    assert.deepEqual((await problemsOf(many.slice(1))).places, []);
    const long = 'x'.repeat(10_001);
    const { places } = await problemsOf([
      { path: 'hyperparams.a', default: long },
      { path: 'hyperparams.b', allowed: [long] },
      { path: 'hyperparams.c', allowed: Array.from({ length: 101 }, (_, n) => n) },
      { path: 'hyperparams.d', required: true, message: 'x'.repeat(501) },
      { path: `hyperparams.${'x'.repeat(250)}`, required: true },
      { path: 'hyperparams.\0', required: true },
      { path: 'hyperparams.e', default: 'a\0' },
      { path: 'hyperparams.f', default: '\ud800' },
    ]);
    assert.deepEqual(places, [
      'OUT_OF_RANGE input.rules.0.default',
      'OUT_OF_RANGE input.rules.1.allowed',
      'OUT_OF_RANGE input.rules.2.allowed',
      'OUT_OF_RANGE input.rules.3.message',
      'MALFORMED input.rules.4.path',
      'MALFORMED input.rules.5.path',
      'NOT_ALLOWED input.rules.6.default',
      'NOT_ALLOWED input.rules.7.default',
    ]);
  });

  test('are read in turns: others are served meanwhile', async () => {
    const allowed = Array.from({ length: 100 }, (_, n) => `value-${n}`);
    const rules = Array.from({ length: 200 }, (_, n) => ({ path: `hyperparams.x${n}`, allowed }));
    let served = 0;
    const serving = setInterval(() => served++, 1);
    assert.equal((await readRules(rules, [])).length, 200);
    clearInterval(serving);
    assert.ok(served >= 5, `${served} times`);
  });

  test('may be about any hyperparameter of the script, whose default may be null', async () => {
    const [rule] = await readRules([{ path: 'hyperparams.optim.beta', default: null, min: 0, max: 1 }], []);
    assert.deepEqual([rule?.hasDefault, rule?.default, rule?.max], [true, null, 1]);
    const names = [
      'hyperparams',
      'hyperparams.',
      'hyperparams.__proto__',
      'hyperparams.early_stopping',
      '__proto__',
      '',
    ];
    for (const path of names) assert.equal((await problemsOf([{ path, required: true }])).places.length, 1, path);
  });

  test('whatever they hold, are refused or kept, and what is kept can be obeyed', async () => {
    const value = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.integer({ min: -5, max: 40 }));
    const path = fc.oneof(
      fc.constantFrom(
        'hyperparams.epochs',
        'hyperparams.lr_scheduler',
        'resources.labels',
        'augmentation',
        'hyperparams.x',
      ),
      fc.string(),
    );
    const optional = fc.option(fc.integer({ min: -5, max: 40 }));
    const input = fc.record(
      { path, default: value, min: optional, max: optional, allowed: fc.option(fc.array(value, { maxLength: 3 })) },
      { requiredKeys: ['path'] },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(input, { maxLength: 3 }), async (inputs) => {
        try {
          for (const rule of await readRules(inputs, [])) {
            if (rule.hasDefault) assert.deepEqual(brokenLimits(rule, rule.default), []);
          }
        } catch (error) {
          assert.ok(error instanceof Refusal && error.code === 'INVALID_INPUT', String(error));
        }
      }),
    );
  });
});

suite('a job', () => {
  test('gets the value of the request, else of the policy, else of the defaults, and keeps its revision', async () => {
    await set([
      { path: 'hyperparams.epochs', default: 7 },
      { path: 'hyperparams.lr', default: 0.5 },
      { path: 'hyperparams.mine', default: ['x'] },
      { path: 'timeout_seconds', default: 60 },
      { path: 'priority', default: 9 },
      { path: 'command', default: ['echo', 'policy'] },
    ]);
    const { job: made } = await submit({ hyperparams: { lr: 0.1 } });
    const source = (path: string) => made.resolved.find((found) => found.path === path);
    assert.deepEqual(source('hyperparams.lr'), {
      path: 'hyperparams.lr',
      source: 'REQUEST',
      value: 0.1,
      overrides: [
        { source: 'POLICY', value: 0.5 },
        { source: 'DEFAULT', value: 3e-5 },
      ],
    });
    assert.deepEqual(
      [source('hyperparams.epochs')?.source, source('hyperparams.batch_size')?.source],
      ['POLICY', 'DEFAULT'],
    );
    const { hyperparams, command } = made.effective as { hyperparams: Record<string, unknown>; command: string[] };
    assert.deepEqual([hyperparams['epochs'], hyperparams['mine'], command], [7, ['x'], ['echo', 'policy']]);
    assert.deepEqual([made.policyRevision, made.timeoutSeconds, made.priority], [1, 60, 9]);

    await set([]);
    const [kept] = await store.database.db.select().from(job).where(eq(job.id, made.id));
    assert.deepEqual(kept, made, 'a later revision changes nothing');
    assert.equal((await submit({})).job.policyRevision, 2);
  });

  test('of a project without a command runs the one of the policy', async () => {
    project = await commit(store, (tx) => createProject(tx, store.admin, { id: `p-bare-${count}` }));
    await assert.rejects(submit({}), refused('INVALID_INPUT'));
    await set([{ path: 'command', default: ['true'] }]);
    assert.deepEqual((await submit({})).job.effective['command'], ['true']);
  });

  test('is refused with every violation at once, each with its value, rule and sentence', async () => {
    await set([
      { path: 'hyperparams.epochs', max: 20 },
      { path: 'hyperparams.lr', min: 1e-4, message: 'Too slow for us.' },
      { path: 'hyperparams.lr_scheduler', allowed: ['linear', 'constant'] },
      { path: 'hyperparams.warmup', required: true },
      { path: 'resources.gpus', max: 2 },
    ]);
    const spec = { hyperparams: { epochs: 50, warmup: null }, resources: { gpus: 2 } };
    await assert.rejects(
      submit(spec),
      refused('POLICY_VIOLATION', (refusal) => {
        const { violations = [], path, hint } = refusal.details;
        assert.deepEqual(
          violations.map(({ kind, path: where, value, message }) => [kind, where, value, message]),
          [
            ['MAX', 'hyperparams.epochs', 50, "epochs 50 is above the project's maximum 20."],
            ['MIN', 'hyperparams.lr', 3e-5, 'Too slow for us.'],
            [
              'ALLOWED',
              'hyperparams.lr_scheduler',
              'cosine',
              'lr_scheduler "cosine" is not among the values that the project allows: "linear", "constant".',
            ],
            ['REQUIRED', 'hyperparams.warmup', null, 'warmup must be set in the job spec: the project requires it.'],
          ],
        );
        assert.equal(violations[0]?.rule.max, 20);
        assert.deepEqual(path, ['input', 'spec', 'hyperparams', 'epochs']);
        assert.equal(hint, 'Set hyperparams.epochs to at most 20.');
        assert.match(refusal.message, /^4 violations of the project's policy, the first: epochs 50/);
        assert.deepEqual([refusal.httpStatus, refusal.retryable], [403, false]);
      }),
    );
    assert.equal(await store.database.db.$count(job, eq(job.projectId, project.id)), 0);
    await submit({ hyperparams: { epochs: 20, lr: 1e-4, lr_scheduler: 'linear', warmup: 0 } });
  });

  test('hears of problems of its spec first, of the policy when there are none', async () => {
    await set([{ path: 'hyperparams.epochs', max: 20 }]);
    await assert.rejects(submit({ hyperparams: { epochs: 50, lr: -1 } }), refused('INVALID_INPUT'));
    await assert.rejects(submit({ hyperparams: { epochs: 50 } }), refused('POLICY_VIOLATION'));
  });

  test('is checked in each step of its augmentation, also where a default fills the probability in', async () => {
    await set([{ path: 'augmentation.probability', default: 0.2, max: 0.5 }]);
    const { job: made } = await submit({ augmentation: [{ op: 'shift' }] });
    assert.deepEqual(made.effective['augmentation'], [{ op: 'shift', probability: 0.2, params: {} }]);
    const spec = { augmentation: [{ op: 'shift' }, { op: 'flip', probability: 0.9 }] };
    await assert.rejects(
      submit(spec),
      refused('POLICY_VIOLATION', ({ details }) => {
        assert.deepEqual(
          details.violations?.map(({ path, value }) => [path, value]),
          [['augmentation.1.probability', 0.9]],
        );
        assert.deepEqual(details.path, ['input', 'spec', 'augmentation', '1', 'probability']);
      }),
    );
    await submit({});
  });

  test('whose hyperparameter is no number does not slip through a bound', async () => {
    await set([{ path: 'hyperparams.steps', max: 5 }]);
    await assert.rejects(
      submit({ hyperparams: { steps: '9' } }),
      refused('POLICY_VIOLATION', ({ message }) => assert.match(message, /steps "9" is not a number/)),
    );
    await submit({ hyperparams: { steps: null } });
    await submit({ hyperparams: { steps: 5 } });
  });

  test('replayed is the first job, whatever the policy is now', async () => {
    const spec = { hyperparams: { epochs: 50 } };
    const first = await submit(spec, 'key');
    await set([{ path: 'hyperparams.epochs', max: 20 }]);
    const again = await submit(spec, 'key');
    assert.deepEqual([again.replayed, again.job.id, again.job.policyRevision], [true, first.job.id, 0]);
    await assert.rejects(submit(spec, 'other'), refused('POLICY_VIOLATION'));
    await set([]);
    assert.equal((await submit(spec, 'other')).replayed, false, 'a refusal did not use the key up');
  });

  test('obeys a policy that was committed before it was checked', skipUnless('postgres'), async () => {
    const [opened, changed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const submitted = commit(store, async (tx) => {
      await tx.execute(sql`select 1`);
      opened.resolve();
      await changed.promise;
      const sent = { project_id: project.id, model: 'm', dataset: 'd', hyperparams: { epochs: 2 } };
      return submitWithin(tx, store.admin, { spec: sent, at }, 1);
    });
    await opened.promise;
    await set([{ path: 'hyperparams.epochs', max: 1 }]);
    changed.resolve();
    await assert.rejects(submitted, refused('POLICY_VIOLATION'));
  });

  test('is previewed with the values and every violation', async () => {
    await set([{ path: 'hyperparams.epochs', default: 3, max: 4 }]);
    const spec = { project_id: project.id, model: 'm', dataset: 'd', hyperparams: { epochs: 9 } };
    const plan = await planJob(store.database.db, store.admin, { spec, at: ['spec'] });
    assert.equal(plan.ready, false);
    assert.equal(plan.policy?.revision, 1);
    assert.equal(plan.refusal.details.violations?.length, 1);
    assert.equal(
      plan.resolved.find(({ path }) => path === 'hyperparams.epochs')?.value,
      9,
      'nothing is changed silently',
    );
    assert.equal((await getProject(store.database.db, store.admin, project.id))?.id, project.id);
  });
});

suite('a rule that warns', () => {
  test('lets the job pass with a warning, whatever it limits; a rule that refuses beside it still does', async () => {
    const warning = { enforcement: 'WARN' } as const;
    await set([
      { path: 'hyperparams.epochs', min: 2, max: 20, ...warning },
      { path: 'hyperparams.lr_scheduler', allowed: ['cosine'], message: 'Ask the team.', ...warning },
      { path: 'hyperparams.warmup', required: true, ...warning },
      { path: 'priority', max: 5 },
    ]);
    const { job: made, warnings } = await submit({ hyperparams: { epochs: 50, lr_scheduler: 'linear' } });
    assert.equal(made.state, 'QUEUED');
    assert.deepEqual(warnings, [
      {
        code: 'POLICY_WARNING',
        message: "epochs 50 is above the project's maximum 20.",
        path: [...at, 'hyperparams', 'epochs'],
      },
      { code: 'POLICY_WARNING', message: 'Ask the team.', path: [...at, 'hyperparams', 'lrScheduler'] },
      {
        code: 'POLICY_WARNING',
        message: 'warmup must be set in the job spec: the project requires it.',
        path: [...at, 'hyperparams', 'extra', 'warmup'],
      },
    ]);
    const [submitted] = await store.database.db.select().from(event).where(eq(event.jobId, made.id));
    assert.match(submitted?.message ?? '', /maximum 20\. Ask the team\./);
    const low = await submit({ hyperparams: { epochs: 1, warmup: 1 } });
    assert.match(low.warnings[0]?.message ?? '', /below the project's minimum 2/);
    await assert.rejects(
      submit({ hyperparams: { epochs: 50 }, priority: 9 }),
      refused('POLICY_VIOLATION', ({ details }) => {
        assert.deepEqual(
          details.violations?.map(({ path }) => path),
          ['priority'],
        );
      }),
    );
  });

  test('is told from one that refuses in the revisions; rules kept before there was a choice refuse', async () => {
    const first = await set([{ path: 'priority', max: 5, enforcement: 'WARN' }]);
    const second = await set([{ path: 'priority', max: 5 }]);
    assert.deepEqual([first.revision, second.revision], [1, 2]);
    const { db } = store.database;
    await db
      .update(policy)
      .set({ rules: sql`${JSON.stringify([{ ...second.rules[0], enforcement: undefined }])}::text::jsonb` })
      .where(and(eq(policy.projectId, project.id), eq(policy.revision, 2)));
    assert.deepEqual(await getPolicy(db, project, 2), second);
    await assert.rejects(submit({ priority: 9 }), refused('POLICY_VIOLATION'));
  });
});

suite('a dry run of rules', () => {
  const tried = async (rules: RuleInput[]) => {
    const input = { projectId: project.id, rules, ifRevision: null };
    const { db } = store.database;
    const { policy: current, tried: read } = await tryPolicy(db, store.admin, input);
    const jobs = await listRefused(db, store.admin, project.id, read);
    return { current, numbers: jobs.map(({ number }) => number) };
  };

  test('names the last jobs that they would refuse, by what each asked for, and changes nothing', async () => {
    await set([{ path: 'hyperparams.epochs', default: 3 }]);
    const asked = (await submit({ hyperparams: { epochs: 50 } })).job.number;
    const given = (await submit({})).job.number;
    const max = { path: 'hyperparams.epochs', max: 2 };
    assert.deepEqual((await tried([max])).numbers, [given, asked], 'without its default 5 of v2.1');
    assert.deepEqual((await tried([{ ...max, default: 2 }])).numbers, [asked], 'with a default of their own');
    assert.deepEqual((await tried([{ ...max, enforcement: 'WARN' }])).numbers, []);
    assert.deepEqual((await tried([{ path: 'hyperparams.epochs', required: true }])).numbers, [given]);
    assert.deepEqual((await tried([{ path: 'hyperparams.lr', max: 1 }])).numbers, []);
    const { current } = await tried([]);
    assert.deepEqual([current.revision, current.rules.length], [1, 1]);
  });

  test('looks at the last 100 jobs of the project only', async () => {
    for (let count = 0; count < 101; count++) await submit({});
    const { numbers } = await tried([{ path: 'hyperparams.epochs', max: 1 }]);
    assert.equal(numbers.length, 100);
    assert.equal(Math.min(...numbers), 2);
  });

  test('is checked like rules that are set', async () => {
    await assert.rejects(tried([{ path: 'epochs', max: 1 }]), refused('INVALID_INPUT'));
    const input = { projectId: project.id, rules: [], ifRevision: 7 };
    await assert.rejects(tryPolicy(store.database.db, store.admin, input), refused('INVALID_STATE'));
    const stranger = actor(['WRITE'], project.id);
    await assert.rejects(
      tryPolicy(store.database.db, stranger, { ...input, ifRevision: null }),
      refused('PERMISSION_DENIED'),
    );
  });
});

suite('for any rules and any spec', () => {
  const [v21] = builtinVersions;
  assert.ok(v21);
  const paths = ['epochs', 'batch_size', 'lr_scheduler', 'extra'] as const;
  const values = { epochs: fc.integer({ min: 1, max: 9 }), batch_size: fc.integer({ min: 1, max: 40 }) };
  const text = fc.constantFrom('cosine', 'linear', 'step');
  const spec = fc.record(
    { ...values, lr_scheduler: text, extra: fc.oneof(text, fc.integer(), fc.constant(null)) },
    { requiredKeys: [] },
  );
  const number = fc.record(
    {
      default: fc.integer({ min: 1, max: 40 }),
      min: fc.integer({ min: 1, max: 9 }),
      max: fc.integer({ min: 5, max: 40 }),
      required: fc.boolean(),
    },
    { requiredKeys: [] },
  );
  const word = fc.record(
    { default: text, allowed: fc.uniqueArray(text, { minLength: 1 }), required: fc.boolean() },
    { requiredKeys: [] },
  );
  const rules = fc.record(
    { epochs: number, batch_size: number, lr_scheduler: word, extra: word },
    { requiredKeys: [] },
  );

  test('the effective value is request, else policy, else default; it is refused exactly when a rule is violated', async () => {
    let kept = 0;
    await fc.assert(
      fc.asyncProperty(rules, spec, async (given, hyperparams) => {
        const inputs = Object.entries(given).map(([name, rule]) => ({ path: `hyperparams.${name}`, ...rule }));
        let read: PolicyRule[];
        try {
          read = await readRules(inputs, []);
        } catch {
          return; // a rule that cannot be kept
        }
        kept++;
        const parsed = parseSpec({ project_id: 'p-x', model: 'm', dataset: 'd', hyperparams }).spec;
        assert.ok(parsed);
        const request = layerOf(parsed, 'REQUEST');
        const resolved = resolve([request, policyLayer({ rules: read }), defaultsLayer(v21)]);
        const violations = checkRules(read, request, resolved);
        for (const name of paths) {
          const path = `hyperparams.${name}`;
          const rule: RuleInput | undefined = given[name] && { path, ...given[name] };
          const asked = hyperparams[name];
          const value: unknown = asked ?? rule?.default ?? v21.documented[path]; // null is unset
          assert.deepEqual(resolved.find((found) => found.path === path)?.value, value);

          const isSet = asked !== undefined && asked !== null;
          const tooSmall = typeof rule?.min === 'number' && (value as number) < rule.min;
          const tooLarge = typeof rule?.max === 'number' && (value as number) > rule.max;
          const notAllowed = rule?.allowed && value !== null && value !== undefined && !rule.allowed.includes(value);
          const wrong = (rule?.required === true && !isSet) || tooSmall || tooLarge || notAllowed === true;
          assert.equal(
            violations.some((violation) => violation.path === path),
            wrong,
            path,
          );
        }
      }),
      { numRuns: 400 },
    );
    assert.ok(kept > 50, `${kept} policies were kept`);
  });
});
