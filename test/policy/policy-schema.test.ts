// Policies as clients meet them: setPolicy and its typed errors, submitJob refused with violations, history in pages.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { createProject, createToken, dataOf, type Door, openDoor, post } from '../support/door.ts';
import { expectNoLeaks } from '../support/leaks.ts';

const project = 'p-rules';
let door: Door;
let port: number;
const tokens = { reader: '', writer: '', stranger: '' };

before(async () => {
  door = await openDoor();
  port = door.port;
  await createProject(port, project);
  await createProject(port, 'p-other');
  tokens.reader = await createToken(port, { projectId: project, scopes: ['READ'] });
  tokens.writer = await createToken(port, { projectId: project, scopes: ['WRITE'] });
  tokens.stranger = await createToken(port, { projectId: 'p-other', scopes: ['ADMIN'] });
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

type Json = Record<string, unknown>;

const ruleFields = 'path default hasDefault min max allowed required enforcement message';
const setMutation = `mutation ($input: SetPolicyInput!) {
  setPolicy(input: $input) {
    __typename
    ... on PolicyPayload { policy { id revision project { id } rules { ${ruleFields} } createdAt createdBy { __typename name } } }
    ... on UserError { code message path hint httpStatus retryable }
    ... on ValidationError { issues { code path specPath message hint } }
    ... on InvalidStateError { currentState }
    ... on PermissionError { requiredScope }
  }
}`;
const submitMutation = `mutation ($input: SubmitJobInput!) {
  submitJob(input: $input) {
    __typename
    ... on SubmitJobPayload { job { id policyRevision policy { id revision rules { path } } hyperparams { epochs } } }
    ... on UserError { code message path hint httpStatus retryable }
    ... on PolicyViolationError { violations { path value message kind rule { ${ruleFields} } } }
  }
}`;

async function ask<T = Json>(query: string, variables: Json = {}, token?: string): Promise<T> {
  const { data, errors } = (await post(port, { query, variables, ...(token ? { token } : {}) })).json();
  assert.equal(errors, undefined, JSON.stringify(errors));
  return data as T;
}

async function set(rules: Json[], more: Json = {}, token?: string): Promise<Json> {
  const input = { projectId: project, rules, ...more };
  return (await ask<{ setPolicy: Json }>(setMutation, { input }, token)).setPolicy;
}

async function submit(spec: Json = {}, token?: string): Promise<Json> {
  const input = { spec: { projectId: project, model: 'm', dataset: 'd', ...spec } };
  return (await ask<{ submitJob: Json }>(submitMutation, { input }, token)).submitJob;
}

suite('a policy over GraphQL', () => {
  test('is set, and read back as it was set; a default of null is told from none', async () => {
    const rules = [
      { path: 'hyperparams.x', default: null },
      { path: 'hyperparams.epochs', default: 3, min: 1, max: 20 },
      { path: 'hyperparams.lr_scheduler', allowed: ['cosine', 'linear'], message: 'Ask the team.' },
    ];
    const payload = await set(rules, { ifRevision: 0 });
    assert.equal(payload['__typename'], 'PolicyPayload', JSON.stringify(payload));
    const policy = payload['policy'] as { id: string; rules: Json[]; createdBy: Json; revision: number; project: Json };
    assert.deepEqual([policy.revision, policy.project], [1, { id: project }]);
    assert.equal(policy.createdBy['__typename'], 'AccessToken');
    const none = {
      default: null,
      hasDefault: false,
      min: null,
      max: null,
      allowed: null,
      required: false,
      enforcement: 'DENY',
      message: null,
    };
    assert.deepEqual(policy.rules, [
      { ...none, path: 'hyperparams.epochs', default: 3, hasDefault: true, min: 1, max: 20 },
      { ...none, path: 'hyperparams.lr_scheduler', allowed: ['cosine', 'linear'], message: 'Ask the team.' },
      { ...none, path: 'hyperparams.x', hasDefault: true },
    ]);
    const fields = `id revision project { id } rules { ${ruleFields} } createdAt createdBy { __typename name }`;
    const read = await ask<Record<string, Json>>(`{
      policy(projectId: "${project}") { ${fields} }
      project(id: "${project}") { policy(revision: 1) { ${fields} } }
      node(id: "${policy.id}") { ... on Policy { ${fields} } }
    }`);
    assert.deepEqual([read['policy'], read['project']?.['policy'], read['node']], [policy, policy, policy]);
  });

  test('makes a job that violates it a PolicyViolationError with all violations', async () => {
    const refused = await submit({ hyperparams: { epochs: 50, lrScheduler: 'step' } });
    const { violations, ...error } = refused as { violations: Json[] };
    assert.deepEqual(error, {
      __typename: 'PolicyViolationError',
      code: 'POLICY_VIOLATION',
      message: "2 violations of the project's policy, the first: epochs 50 is above the project's maximum 20.",
      path: ['input', 'spec', 'hyperparams', 'epochs'],
      hint: 'Set hyperparams.epochs to at least 1, at most 20.',
      httpStatus: 403,
      retryable: false,
    });
    assert.deepEqual(
      violations.map(({ rule, ...violation }) => [violation, (rule as Json)['path']]),
      [
        [
          {
            path: 'hyperparams.epochs',
            value: 50,
            kind: 'MAX',
            message: "epochs 50 is above the project's maximum 20.",
          },
          'hyperparams.epochs',
        ],
        [
          { path: 'hyperparams.lr_scheduler', value: 'step', kind: 'ALLOWED', message: 'Ask the team.' },
          'hyperparams.lr_scheduler',
        ],
      ],
    );
  });

  test('is kept by the job with its revision, and shows in the effective defaults and the preview', async () => {
    const { job } = (await submit()) as { job: Json };
    assert.deepEqual([job['policyRevision'], job['hyperparams']], [1, { epochs: 3 }]);
    assert.equal((job['policy'] as Json)['id'], `pol_${project}_1`);
    const read = await ask<{ project: { effectiveDefaults: Json[] }; previewJob: Record<string, Json[]> }>(
      `query ($spec: JobSpecInput!) {
        project(id: "${project}") { effectiveDefaults { path value source overrides { source value } } }
        previewJob(spec: $spec) {
          policyRevision command specHash resolved { path value source }
          errors { __typename code ... on PolicyViolationError { violations { kind path } } }
        }
      }`,
      { spec: { projectId: project, model: 'm', dataset: 'd', hyperparams: { epochs: 0.5 } } },
    );
    const { effectiveDefaults } = read.project;
    const valueAt = (path: string) => effectiveDefaults.find((value) => value['path'] === path);
    assert.deepEqual(valueAt('hyperparams.epochs'), {
      path: 'hyperparams.epochs',
      value: 3,
      source: 'POLICY',
      overrides: [{ source: 'DEFAULT', value: 5 }],
    });
    assert.equal(valueAt('augmentation.probability')?.['source'], 'PLATFORM');
    const { resolved, ...preview } = read.previewJob;
    assert.deepEqual(preview, {
      policyRevision: 1,
      command: null,
      specHash: null,
      errors: [
        {
          __typename: 'PolicyViolationError',
          code: 'POLICY_VIOLATION',
          violations: [{ kind: 'MIN', path: 'hyperparams.epochs' }],
        },
      ],
    });
    const asked = resolved?.find(({ path }) => path === 'hyperparams.epochs');
    assert.deepEqual(asked, { path: 'hyperparams.epochs', value: 0.5, source: 'REQUEST' });
  });

  test('with problems is a ValidationError that names them all', async () => {
    const refused = await set([
      { path: 'epochs', max: 1 },
      { path: 'hyperparams.lr', min: 2, max: 1 },
    ]);
    assert.deepEqual([refused['__typename'], refused['httpStatus']], ['ValidationError', 422]);
    assert.deepEqual(refused['issues'], [
      {
        code: 'NOT_ALLOWED',
        path: ['input', 'rules', '0', 'path'],
        specPath: null,
        message: '"epochs" is no path of a job spec that a policy can be about.',
        hint: 'Did you mean "hyperparams.epochs"?',
      },
      {
        code: 'OUT_OF_RANGE',
        path: ['input', 'rules', '1', 'min'],
        specPath: 'hyperparams.lr',
        message: 'hyperparams.lr has a min 2 above its max 1.',
        hint: null,
      },
    ]);
  });

  test('at another revision than the caller saw is an InvalidStateError', async () => {
    const refused = await set([], { ifRevision: 0 });
    assert.deepEqual(
      [refused['__typename'], refused['currentState'], refused['path']],
      ['InvalidStateError', 'revision 1', ['input', 'ifRevision']],
    );
  });

  test('is set with ADMIN only; what others may not see does not exist for them', async () => {
    const writer = await set([], {}, tokens.writer);
    assert.deepEqual([writer['__typename'], writer['requiredScope']], ['PermissionError', 'ADMIN']);
    assert.equal((await set([], {}, tokens.reader))['__typename'], 'PermissionError');
    assert.equal((await set([], {}, tokens.stranger))['__typename'], 'NotFoundError');
    const query = `{ policy(projectId: "${project}") { revision } node(id: "pol_${project}_1") { id } }`;
    assert.deepEqual(await ask(query, {}, tokens.stranger), { policy: null, node: null });
    assert.deepEqual(await ask(query, {}, tokens.reader), {
      policy: { revision: 1 },
      node: { id: `pol_${project}_1` },
    });
    assert.equal((await submit({ hyperparams: { epochs: 50 } }, tokens.writer))['__typename'], 'PolicyViolationError');
  });

  test('has a history in pages, down to the empty revision 0', async () => {
    for (const max of [1, 2, 3]) assert.equal((await set([{ path: 'priority', max }]))['__typename'], 'PolicyPayload');
    const query = `query ($after: String) { project(id: "${project}") { policyHistory(first: 2, after: $after) {
      nodes { revision createdBy { name } } edges { cursor } pageInfo { hasNextPage hasPreviousPage endCursor } } } }`;
    type History = { nodes: { revision: number; createdBy: null | Json }[]; pageInfo: Json };
    const seen: number[] = [];
    let after: unknown = null;
    for (let more = true; more;) {
      const { policyHistory } = (await ask<{ project: { policyHistory: History } }>(query, { after })).project;
      seen.push(...policyHistory.nodes.map(({ revision }) => revision));
      for (const { revision, createdBy } of policyHistory.nodes) assert.equal(createdBy === null, revision === 0);
      [more, after] = [policyHistory.pageInfo['hasNextPage'] === true, policyHistory.pageInfo['endCursor']];
    }
    assert.deepEqual(seen, [4, 3, 2, 1, 0]);
    const code = async (cursor: string) =>
      (await post(port, { query, variables: { after: cursor } })).json().errors?.[0]?.extensions.code;
    assert.equal(await code('garbage'), 'CURSOR_INVALID');
    const elsewhere = Buffer.from(JSON.stringify([1, 'policies:p-other', 1])).toString('base64url');
    assert.equal(await code(elsewhere), 'CURSOR_WRONG_STREAM');
  });

  test('is a root query for anybody who is signed in, and null for a project that does not exist', async () => {
    assert.deepEqual(await ask('{ policy(projectId: "p-none") { id } }'), { policy: null });
    assert.deepEqual(await ask(`{ policy(projectId: "${project}", revision: 99) { id } }`), { policy: null });
    const data = await dataOf(port, {
      query: `{ policy(projectId: "${project}", revision: 0) { revision rules { path } } }`,
    });
    assert.deepEqual(data['policy'], { revision: 0, rules: [] });
    const nobody = (await post(port, { query: `{ policy(projectId: "${project}") { id } }`, token: null })).json();
    assert.equal(nobody.errors?.[0]?.extensions.code, 'UNAUTHENTICATED');
  });
});
