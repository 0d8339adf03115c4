// Tokens of runners that are bound to projects: what they may claim, who may make them, what waits say of them. And what
// shows of a token that a caller may not see, and of what a revoked one leaves behind.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { expectNoLeaks } from '../support/leaks.ts';
import {
  adminToken,
  bearer,
  createProject,
  createSchedule,
  createToken,
  dataOf,
  type Door,
  jsonType,
  openDoor,
  post,
  send,
  submitJob,
} from '../support/door.ts';

const [mine, other, third] = ['p-mine', 'p-other', 'p-third'];

let door: Door;
let port: number;
before(async () => {
  door = await openDoor();
  port = door.port;
  for (const id of [mine, other, third]) await createProject(port, id);
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

type Problem = { code: string; message: string; issues?: { path: string[]; message: string }[] };
type Made = { token: { id: string; project: object | null; projects: { id: string }[] | null }; secret: string };

async function make(input: object, token = adminToken): Promise<Made | Problem> {
  const query = `mutation ($input: CreateTokenInput!) { createToken(input: $input) {
    ... on CreateTokenPayload { secret token { id project { id } projects { id } } }
    ... on UserError { code message } ... on ValidationError { issues { path message } } } }`;
  const answer = await post(port, { query, variables: { input: { name: 'runner', ...input } }, token });
  return (answer.json().data as unknown as { createToken: Made | Problem }).createToken;
}

async function makeBound(...projectIds: string[]): Promise<string> {
  const made = await make({ scopes: ['RUNNER'], projectIds });
  if (!('secret' in made)) throw new Error(JSON.stringify(made));
  return made.secret;
}

async function callRunner(token: string, path: string, body: object) {
  const headers = { ...jsonType, ...bearer(token) };
  const answer = await send(port, { path: `/runner/v1/${path}`, headers, body: JSON.stringify(body) });
  assert.equal(answer.status, 200, answer.text);
  return answer.json() as Record<string, unknown>;
}

let requests = 0;
/** Signs a runner on; `claim` asks for one job and does not wait, `leave` drains it. */
async function signOn(token: string, name: string, gpus = 4) {
  const all = Array.from({ length: gpus }, (_, index) => ({ index, model: 'A100', memoryBytes: 0 }));
  const boot = { name, version: '1', labels: [], gpus: all, places: 8, bootId: name };
  const runnerId = String((await callRunner(token, 'register', boot))['runnerId']);
  return {
    runnerId,
    async claim(): Promise<string | null> {
      const request = {
        runnerId,
        freeGpus: all.map(({ index }) => index),
        requestId: `r${++requests}`,
        waitSeconds: 0,
      };
      const { assignment } = await callRunner(token, 'claim', request);
      return (assignment as { job: { id: string } } | null)?.job.id ?? null;
    },
    leave: () => callRunner(token, 'drain', { runnerId, bootId: name }),
  };
}

const cancel = (id: string) => dataOf(port, { query: `mutation { cancelJob(input: { id: "${id}" }) { __typename } }` });

suite('A runner with a token for some projects', () => {
  test('claims their jobs only, and one for all projects claims the rest', async () => {
    const runner = await signOn(await makeBound(mine, third), 'bound');
    const [theirs, ours] = [await submitJob(port, other), await submitJob(port, mine)];
    assert.equal(await runner.claim(), ours, 'the older job of another project is not for it');
    assert.equal(await runner.claim(), null);
    const thirds = await submitJob(port, third);
    assert.equal(await runner.claim(), thirds);
    const all = await signOn(await createToken(port, { projectId: null, scopes: ['RUNNER'] }), 'all');
    assert.equal(await all.claim(), theirs);
    await Promise.all([runner.leave(), all.leave()]);
  });

  test('is named as the reason of a wait, over every door, without the projects that it is for', async () => {
    const runner = await signOn(await makeBound(mine), 'only', 2);
    const id = await submitJob(port, other);
    const stranger = await createToken(port, { projectId: other, scopes: ['WRITE'] });
    const query = `query ($id: ID!, $spec: JobSpecInput!) {
      job(id: $id) { stateReason { code message hint } queuePosition }
      previewJob(spec: $spec) { matchingRunners warnings { code message } }
      runners { nodes { name projects { id } } } }`;
    const spec = { projectId: other, model: 'm', dataset: 'd' };
    const answer = await post(port, { query, variables: { id, spec }, token: stranger });
    const { job, previewJob, runners } = answer.json().data as unknown as {
      job: { stateReason: { code: string; message: string; hint: string }; queuePosition: number };
      previewJob: { matchingRunners: number; warnings: { code: string; message: string }[] };
      runners: { nodes: { name: string; projects: object[] | null }[] };
    };
    const { code, message } = job.stateReason;
    assert.equal(code, 'WAITING_FOR_RUNNER', message);
    assert.match(message, /^1 runner online matches .*, but takes jobs of other projects only\.$/);
    assert.equal(job.queuePosition, 1);
    assert.equal(previewJob.matchingRunners, 0);
    assert.match(
      previewJob.warnings.find((warning) => warning.code === 'NO_MATCHING_RUNNER')?.message ?? '',
      /other projects/,
    );
    assert.deepEqual(runners.nodes.find(({ name }) => name === 'only')?.projects, []);
    assert.equal(answer.text.includes(mine), false, answer.text);
    const rest = await send(port, { method: 'GET', path: `/v1/jobs/${id}`, headers: bearer(stranger) });
    const { state_reason: reason } = JSON.parse(rest.text) as { state_reason: { code: string; message: string } };
    assert.deepEqual([reason.code, reason.message], [code, message]);
    const { runners: shown } = await dataOf(port, { query: '{ runners { nodes { name projects { id } } } }' });
    const nodes = (shown as unknown as { nodes: { name: string; projects: object[] | null }[] }).nodes;
    assert.deepEqual(nodes.find(({ name }) => name === 'only')?.projects, [{ id: mine }]);
    assert.equal(nodes.find(({ name }) => name === 'all')?.projects, null);
    await cancel(id);
    await runner.leave();
  });

  test('is reached by its own project’s jobs behind more of another project than a claim looks at', async () => {
    const spec = { project_id: other, model: 'm', dataset: 'd', priority: 5 };
    const queued: string[] = [];
    for (let batch = 0; batch < 21; batch++) {
      const input = `input: { spec: { projectId: "${other}", model: "m", dataset: "d", priority: ${spec.priority} } }`;
      const fields = Array.from(
        { length: 50 },
        (_, n) => `j${n}: submitJob(${input}) { ... on SubmitJobPayload { job { id } } }`,
      );
      for (let at = 0; at < fields.length; at += 10) {
        const data = await dataOf(port, { query: `mutation { ${fields.slice(at, at + 10).join(' ')} }` });
        queued.push(...Object.values(data).map((made) => (made as unknown as { job: { id: string } }).job.id));
      }
    }
    assert.equal(queued.length, 1_050);
    const runner = await signOn(await makeBound(mine), 'behind');
    const ours = await submitJob(port, mine);
    assert.equal(await runner.claim(), ours);
    await runner.leave();
  });
});

suite('A token for some projects', () => {
  test('is made by administrators of the platform, for RUNNER alone, and for projects that there are', async () => {
    const made = await make({ scopes: ['RUNNER'], projectIds: [third, mine, mine] });
    assert.ok('token' in made, JSON.stringify(made));
    assert.deepEqual([made.token.project, made.token.projects], [null, [{ id: mine }, { id: third }]]);
    const admin = await createToken(port, { projectId: mine, scopes: ['ADMIN'] });
    for (const [input, code, message, by] of [
      [{ scopes: ['RUNNER'], projectIds: [mine] }, 'PERMISSION_DENIED', /ADMIN/, admin],
      [{ scopes: ['READ'], projectIds: [mine] }, 'INVALID_INPUT', /takes the scope RUNNER/],
      [{ scopes: ['RUNNER', 'READ'], projectIds: [mine] }, 'INVALID_INPUT', /stands alone/],
      [{ scopes: ['RUNNER'], projectIds: [] }, 'INVALID_INPUT', /1 to 100 projects, got 0/],
      [{ scopes: ['RUNNER'], projectIds: Array.from({ length: 101 }, () => mine) }, 'INVALID_INPUT', /got 101/],
      [{ scopes: ['RUNNER'], projectId: mine, projectIds: [mine] }, 'INVALID_INPUT', /exclude each other/],
      [{ scopes: ['RUNNER'], projectId: mine }, 'INVALID_INPUT', /stands alone/],
      [{ scopes: ['RUNNER'], projectIds: [mine, 'p-none'] }, 'NOT_FOUND', /p-none/],
    ] as const) {
      const refused = await make(input, by);
      assert.ok('code' in refused, JSON.stringify(input));
      const text = [refused.message, ...(refused.issues ?? []).map((issue) => issue.message)].join(' ');
      assert.deepEqual([refused.code, message.test(text)], [code, true], text);
    }
  });

  test('reads nothing, not even the projects that it is for', async () => {
    const token = await makeBound(mine);
    const query = `{ viewer { token { scopes projects { id } } projects { nodes { id } } platformTokens { id } } project(id: "${mine}") { id } }`;
    const { data } = (await post(port, { query, token })).json();
    const shown = { token: { scopes: ['RUNNER'], projects: [] }, projects: { nodes: [] }, platformTokens: null };
    assert.deepEqual(data, { viewer: shown, project: null });
  });
});

test('of a token that a caller may not see only id and name show, wherever it acted', async () => {
  const author = await createToken(port, { projectId: mine, scopes: ['ADMIN'] });
  const id = await submitJob(port, mine, author);
  await dataOf(port, {
    query: `mutation { setPolicy(input: { projectId: "${mine}", rules: [{ path: "resources.gpus", max: 8 }] }) { __typename } }`,
    token: author,
  });
  const reader = await createToken(port, { projectId: mine, scopes: ['READ'] });
  const token =
    '{ __typename id name ... on AccessToken { prefix scopes createdAt expiresAt lastUsedAt project { id } projects { id } } }';
  const query = `{ job(id: "${id}") { submittedBy ${token} events { nodes { actor ${token} } }
    project { policy { createdBy ${token} } events(types: [POLICY_SET]) { nodes { actor ${token} } } } } }`;
  type Token = Record<string, unknown>;
  const shownTo = async (by: string): Promise<Token[]> => {
    const { job } = (await dataOf(port, { query, token: by })) as unknown as {
      job: {
        submittedBy: Token;
        events: { nodes: { actor: Token }[] };
        project: { policy: { createdBy: Token }; events: { nodes: { actor: Token }[] } };
      };
    };
    const actors = [...job.events.nodes, ...job.project.events.nodes].map(({ actor }) => actor);
    return [job.submittedBy, job.project.policy.createdBy, ...actors];
  };
  const hidden = {
    prefix: null,
    scopes: null,
    createdAt: null,
    expiresAt: null,
    lastUsedAt: null,
    project: null,
    projects: null,
  };
  const seen = await shownTo(reader);
  assert.equal(seen.length, 4);
  for (const shown of seen) {
    assert.deepEqual({ ...shown, ...hidden }, shown);
    assert.deepEqual([shown['__typename'], shown['name'], typeof shown['id']], ['AccessToken', 'ADMIN', 'string']);
  }
  for (const shown of await shownTo(author)) assert.deepEqual(shown['scopes'], ['ADMIN']);
  await cancel(id);
});

test('a revoked token names the schedules that it leaves, and they go on', async () => {
  const author = await createToken(port, { projectId: mine, scopes: ['WRITE'] });
  const { viewer } = await dataOf(port, { query: '{ viewer { token { id } } }', token: author });
  const { id } = (viewer as unknown as { token: { id: string } }).token;
  const scheduleId = await createSchedule(port, mine, author);
  await createSchedule(port, mine);
  const query = `mutation { revokeToken(input: { id: "${id}" }) { ... on DeletePayload { deletedId schedules { id project { id } pausedAt } } ... on UserError { message } } }`;
  const admin = await createToken(port, { projectId: mine, scopes: ['ADMIN'] });
  const { revokeToken } = await dataOf(port, { query, token: admin });
  const left = [{ id: scheduleId, project: { id: mine }, pausedAt: null }];
  assert.deepEqual(revokeToken, { deletedId: id, schedules: left });
});
