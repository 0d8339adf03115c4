// Hostile inputs over every door: the right refusal, short, and never a 500; a token that may only read costs no plan.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { expectNoLeaks } from '../support/leaks.ts';
import {
  adminToken,
  bearer,
  createProject,
  createToken,
  type Door,
  jsonType,
  openDoor,
  post,
  send,
  transportNames,
  transports,
} from '../support/door.ts';

let door: Door;
let reader: string;
before(async () => {
  door = await openDoor();
  await createProject(door.port, 'p-demo');
  reader = await createToken(door.port, { projectId: 'p-demo', scopes: ['READ'] });
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

const preview = `query ($spec: JobSpecInput!) { previewJob(spec: $spec) {
  resolved { path } errors { __typename code message path hint ... on ValidationError { issues { path specPath message hint } } } } }`;
const least = { projectId: 'p-demo', model: 'm', dataset: 'd' };

function submitRest(spec: object, token = adminToken) {
  const body = JSON.stringify({ project_id: 'p-demo', model: 'm', dataset: 'd', ...spec });
  return send(door.port, { path: '/v1/jobs', headers: { ...jsonType, ...bearer(token) }, body });
}

type Preview = { resolved: unknown[]; errors: { code: string; message: string }[] };

async function previewOf(spec: object, token = adminToken): Promise<Preview> {
  const { text } = await post(door.port, { query: preview, variables: { spec: { ...least, ...spec } }, token });
  const { data } = JSON.parse(text) as { data?: { previewJob: Preview } };
  assert.ok(data, text.slice(0, 500));
  return data.previewJob;
}

suite('A token that may only read', () => {
  test('is told so before its spec is looked at, for notes of 240 KB of eyJ- too', async () => {
    const notes = 'eyJ-'.repeat(60_000);
    for (const spec of [{ notes }, {}, { hyperparams: { extra: { notes } } }, { priority: 5_000 }]) {
      const { resolved, errors } = await previewOf(spec, reader);
      assert.deepEqual(
        errors.map(({ code }) => code),
        ['PERMISSION_DENIED'],
      );
      assert.deepEqual(resolved, []);
    }
    const query = `mutation ($input: SubmitJobInput!) { submitJob(input: $input) { ... on UserError { code } } }`;
    const submitted = await post(door.port, {
      query,
      variables: { input: { spec: { ...least, notes } } },
      token: reader,
    });
    assert.deepEqual(submitted.json().data, { submitJob: { code: 'PERMISSION_DENIED' } });
    assert.equal((await submitRest({ notes }, reader)).status, 403);
  });

  test('and one that may write is told what is too long', async () => {
    const { errors } = await previewOf({ notes: 'eyJ-'.repeat(20_000) });
    assert.match(errors[0]?.message ?? '', /notes takes 20000 characters at most/);
  });
});

suite('POST /v1/jobs', () => {
  test('names a hundred problems at most and says that it stopped', async () => {
    const { status, text } = await submitRest(
      Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`x${i}`, 1])),
    );
    assert.equal(status, 422);
    const { detail, issues } = JSON.parse(text) as { detail: string; issues: unknown[] };
    assert.match(detail, /^Checking stopped after 100 problems, the first: x0 /);
    assert.equal(issues.length, 100);
  });

  test('refuses 50,000 unknown keys, and a key of 900 KB, in a short answer', async () => {
    const many = Object.fromEntries(Array.from({ length: 50_000 }, (_, index) => [`x${index}`, 1]));
    for (const spec of [many, { ['k'.repeat(900_000)]: 1 }, { ['k'.repeat(900)]: 1 }, { hyperparams: many }]) {
      const { status, text } = await submitRest(spec);
      assert.equal(status, 422, text.slice(0, 300));
      assert.ok(text.length < 2_000, `an answer of ${text.length} characters`);
    }
  });

  test('answers what has properties of objects without a 500', async () => {
    const names = ['toString', 'valueOf', 'toJSON', 'then', 'constructor', '__proto__', 'length'];
    const objects = names.map((name) => `{"${name}":{"toString":""}}`);
    for (const value of [...objects, '[{"toString":""},[]]', ...objects.map((text) => `[${text},"--token",[]]`)]) {
      const places = [
        `"hyperparams":${value}`,
        `"hyperparams":{"a":${value},"lr_scheduler":${value}}`,
        `"env":[{"name":${value},"from":${value}},${value}]`,
        `"augmentation":[{"op":"crop","params":{"a":${value}}}]`,
        `"tags":${value},"on_cut":${value},"command":${value},"defaults_version":${value}`,
        `"model":${value}`,
        `"project_id":${value}`,
      ];
      for (const place of places) {
        const body = `{"project_id":"p-demo","model":"m","dataset":"d",${place}}`;
        const { status, text } = await send(door.port, {
          path: '/v1/jobs',
          headers: { ...jsonType, ...bearer(adminToken) },
          body,
        });
        assert.ok(status === 201 || status === 422, `${status} for ${body}: ${text}`);
      }
    }
  });
});

suite('GraphQL', () => {
  test('answers what has properties of objects without a 500, over each transport', async () => {
    const value = JSON.parse('[{"toString":""},{"valueOf":1},{"length":{"toString":""}},{"then":{}},[]]') as unknown;
    const specs = [
      { hyperparams: { extra: { a: value } } },
      { augmentation: [{ op: 'crop', params: { a: value } }] },
      { hyperparams: { extra: value } },
      { env: value },
      { tags: value },
    ];
    for (const spec of specs) {
      for (const transport of transportNames) {
        const { text } = await transports[transport](door.port, {
          query: preview,
          variables: { spec: { ...least, ...spec } },
        });
        assert.doesNotMatch(text, /INTERNAL/);
      }
    }
    const input = { projectId: 'p-demo', rules: [{ path: 'hyperparams.a', default: value, allowed: [value] }] };
    const query = 'mutation ($input: SetPolicyInput!) { setPolicy(input: $input) { __typename } }';
    assert.doesNotMatch((await post(door.port, { query, variables: { input } })).text, /INTERNAL/);
    const values = { hyperparams: value, augmentation: value, resources: { gpus: value } };
    const publish = 'mutation ($input: PublishDefaultsInput!) { publishDefaults(input: $input) { __typename } }';
    const published = await post(door.port, { query: publish, variables: { input: { version: 'v9.9', values } } });
    assert.doesNotMatch(published.text, /INTERNAL/);
  });

  test('carries twenty errors at most, each of them short, over each transport', async () => {
    const unknown = Array.from({ length: 300 }, (_, index) => `nothing${index}`).join(' ');
    const long = 'x'.repeat(190);
    for (const query of [
      `{ viewer { ${unknown} } }`,
      `{ viewer { ${long} } }`,
      `{ jobs(first: "${long.repeat(30)}") { nodes { id } } }`,
    ]) {
      for (const transport of transportNames) {
        const { result, text } = await transports[transport](door.port, { query });
        const errors = result.errors ?? [];
        assert.ok(errors.length >= 1 && errors.length <= 20, text.slice(0, 300));
        for (const { message } of errors) assert.ok(message.length < 300, message);
      }
    }
    const many = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`nothing${index}`, 1]));
    const { result } = await transports.POST(door.port, { query: preview, variables: { spec: many } });
    assert.equal(result.errors?.length, 20);
    assert.match(result.errors.at(-1)?.message ?? '', /^Checking stopped here, after 20 errors\.$/);
  });
});
