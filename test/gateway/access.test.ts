// Who may do what: every root field of the schema, with arguments made from the schema, asked by every kind of caller.
// A field that is added needs a line in the table below; without one a test fails.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  type GraphQLArgument,
  type GraphQLInputType,
  type GraphQLObjectType,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isListType,
  isNonNullType,
  isObjectType,
  isRequiredArgument,
  isRequiredInputField,
  isUnionType,
  getNamedType,
  isLeafType,
} from 'graphql';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import {
  bearer,
  createProject,
  createSchedule,
  createToken,
  dataOf,
  type Door,
  jsonType,
  openDoor,
  openSocket,
  type Outcome,
  post,
  send,
  submitJob,
  transportNames,
  transports,
} from '../support/door.ts';
import { until } from '../support/until.ts';

const mine = 'p-mine';
const other = 'p-other';

let door: Door;
let port: number;
let jobId: string;
let otherJobId: string;
let scheduleId: string;
let endedJobId: string;
let spareTokenId: string;
const tokens: Record<Caller, string | null> = {
  anonymous: null,
  expired: null,
  runner: null,
  stranger: null,
  reader: null,
  writer: null,
  admin: null,
};
type Caller = 'anonymous' | 'expired' | 'runner' | 'stranger' | 'reader' | 'writer' | 'admin';
const callers = Object.keys(tokens) as Caller[];

before(async () => {
  door = await openDoor();
  port = door.port;
  await createProject(port, mine);
  await createProject(port, other);
  const expiresAt = new Date(Date.now() + 1_500);
  tokens.expired = await createToken(port, { projectId: mine, scopes: ['ADMIN'], expiresAt: expiresAt.toISOString() });
  tokens.runner = await createToken(port, { projectId: null, scopes: ['RUNNER'] });
  tokens.stranger = await createToken(port, { projectId: other, scopes: ['ADMIN'] });
  tokens.reader = await createToken(port, { projectId: mine, scopes: ['READ'] });
  tokens.writer = await createToken(port, { projectId: mine, scopes: ['WRITE'] });
  tokens.admin = await createToken(port, { projectId: mine, scopes: ['ADMIN'] });
  jobId = await submitJob(port, mine);
  otherJobId = await submitJob(port, other);
  scheduleId = await createSchedule(port, mine);
  endedJobId = await submitJob(port, mine);
  await dataOf(port, { query: `mutation { cancelJob(input: { id: "${endedJobId}" }) { __typename } }` });
  const spare = await createToken(port, { projectId: mine, scopes: ['READ'] });
  const viewer = await dataOf(port, { query: '{ viewer { token { id } } }', token: spare });
  spareTokenId = (viewer['viewer'] as unknown as { token: { id: string } }).token.id;
  const runner = { name: 'machine', version: '1', labels: [], gpus: [], bootId: 'boot' };
  const headers = { ...jsonType, ...bearer(tokens.runner) };
  const registered = await send(port, { path: '/runner/v1/register', headers, body: JSON.stringify(runner) });
  assert.equal(registered.status, 200, registered.text);
  await until(() => Date.now() > expiresAt.getTime(), { what: 'the end of the token' });
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

/**
 * What a field gives: `data`, `null`, `empty` (a page without items), `stream`, or the code of its error, typed or of
 * the request. Callers that are not named get `data`.
 */
type Answer = 'data' | 'null' | 'empty' | 'stream' | string;
const ofProject = { runner: 'NOT_FOUND', stranger: 'NOT_FOUND', reader: 'PERMISSION_DENIED' };
const signedIn = callers.filter((caller) => caller !== 'anonymous' && caller !== 'expired');
const ofPlatform = Object.fromEntries(signedIn.map((caller) => [caller, 'PERMISSION_DENIED']));
const table: Record<string, Partial<Record<Caller, Answer>>> = {
  'Query.defaults': {},
  // "text" is no published version: whoever is signed in is told so.
  'Query.defaultsDiff': Object.fromEntries(signedIn.map((caller) => [caller, 'BAD_USER_INPUT'])),
  'Query.defaultsVersions': {},
  'Query.job': { runner: 'null', stranger: 'null' },
  'Query.jobs': { runner: 'empty' },
  'Query.node': { runner: 'null', stranger: 'null' },
  'Query.nodes': { runner: 'null', stranger: 'null' },
  'Query.policy': { runner: 'null', stranger: 'null' },
  'Query.previewCron': {},
  'Query.previewJob': {},
  'Query.previewMigration': { runner: 'NOT_FOUND', stranger: 'NOT_FOUND' },
  'Query.project': { runner: 'null', stranger: 'null' },
  'Query.runners': { runner: 'empty' },
  'Query.serverInfo': { anonymous: 'data' },
  'Query.viewer': { anonymous: 'null' },
  'Mutation.cancelJob': ofProject,
  'Mutation.createProject': ofPlatform,
  'Mutation.createSchedule': ofProject,
  'Mutation.deleteSchedule': { ...ofProject, admin: 'NOT_FOUND' }, // the writer has deleted it
  'Mutation.triggerSchedule': ofProject,
  'Mutation.updateSchedule': ofProject,
  'Mutation.createToken': { ...ofProject, writer: 'PERMISSION_DENIED' },
  'Mutation.publishDefaults': ofPlatform,
  'Mutation.setCurrentDefaults': ofPlatform,
  // "text" is no path of a job spec: whoever may set a policy is told so.
  'Mutation.setPolicy': { ...ofProject, writer: 'PERMISSION_DENIED', admin: 'INVALID_INPUT' },
  'Mutation.retryJob': ofProject,
  'Mutation.revokeToken': { ...ofProject, writer: 'PERMISSION_DENIED' },
  // "text" is no name of a secret either.
  'Mutation.setSecret': { ...ofProject, writer: 'PERMISSION_DENIED', admin: 'INVALID_INPUT' },
  'Mutation.deleteSecret': { ...ofProject, writer: 'PERMISSION_DENIED', admin: 'NOT_FOUND' },
  'Mutation.submitJob': ofProject,
  'Mutation.updateJob': ofProject,
  'Mutation.updateProject': { ...ofProject, writer: 'PERMISSION_DENIED' },
  'Subscription.jobEvents': { ...ofProject, reader: 'stream' },
  'Subscription.jobLogs': { ...ofProject, reader: 'stream' },
  'Subscription.jobMetrics': { ...ofProject, reader: 'stream' },
  'Subscription.jobUpdated': { ...ofProject, reader: 'stream' },
  'Subscription.jobsUpdated': { runner: 'PERMISSION_DENIED' },
};

type Root = { path: string; kind: 'query' | 'mutation' | 'subscription'; query: string };

function roots(): Root[] {
  const kinds = [
    ['query', schema.getQueryType()],
    ['mutation', schema.getMutationType()],
    ['subscription', schema.getSubscriptionType()],
  ] as const;
  return kinds.flatMap(([kind, type]) =>
    Object.values(type?.getFields() ?? {}).map((field) => ({
      path: `${type?.name}.${field.name}`,
      kind,
      query: `${kind} { ${field.name}${argumentsOf(field.args, `${type?.name}.${field.name}`)}${selectionOf(getNamedType(field.type))} }`,
    })),
  );
}

/** Arguments of which one must be given, though none of them always. */
const alsoGiven: Record<string, string> = { 'Subscription.jobEvents': 'jobId' };

function argumentsOf(args: readonly GraphQLArgument[], path = ''): string {
  const given = args
    .filter((argument) => isRequiredArgument(argument) || alsoGiven[path] === argument.name)
    .map(({ name, type }) => `${name}: ${literalOf(type, name)}`);
  return given.length > 0 ? `(${given.join(', ')})` : '';
}

/** The smallest literal that is valid; ids are those of what the project has. */
function literalOf(type: GraphQLInputType, name: string): string {
  if (isNonNullType(type)) return literalOf(type.ofType, name);
  if (isListType(type)) return `[${literalOf(type.ofType, name)}]`;
  if (isEnumType(type)) return type.getValues()[0]?.name ?? '';
  if (isInputObjectType(type)) {
    const fields = Object.values(type.getFields()).filter(
      (field) => isRequiredInputField(field) || field.name === 'projectId',
    );
    return `{ ${fields.map((field) => `${field.name}: ${literalOf(field.type, field.name)}`).join(', ')} }`;
  }
  if (name === 'cron') return '"0 * * * *"';
  if (type.name === 'ID') return JSON.stringify(name === 'projectId' ? mine : `ID_OF_${name}`);
  return (
    ({ String: '"text"', JSONObject: '{}', Int: '1', Float: '1.5', Boolean: 'true' } as Record<string, string>)[
      type.name
    ] ?? '"text"'
  );
}

/** Every scalar of a type and of what it leads to, without what must be asked with arguments. */
function selectionOf(type: ReturnType<typeof getNamedType>, depth = 2): string {
  if (isUnionType(type) || isInterfaceType(type)) {
    const members = schema.getPossibleTypes(type);
    const parts = members.map((member) => `... on ${member.name} ${fieldsOf(member, 1, members)}`);
    return ` { __typename ${parts.join(' ')} }`;
  }
  return isObjectType(type) ? ` ${fieldsOf(type, depth, [type])}` : '';
}

/** Fields that have another type in a sibling are left out: they cannot be asked under one name. */
function fieldsOf(type: GraphQLObjectType, depth: number, siblings: readonly GraphQLObjectType[]): string {
  const fields = Object.values(type.getFields()).flatMap((field) => {
    const named = getNamedType(field.type);
    const types = siblings.flatMap((sibling) => sibling.getFields()[field.name]?.type ?? []);
    if (field.args.some(isRequiredArgument) || new Set(types.map(String)).size > 1) return [];
    if (isLeafType(named)) return [field.name];
    return depth > 1 ? [`${field.name}${selectionOf(named, depth - 1)}`] : [];
  });
  return `{ __typename ${fields.join(' ')} }`;
}

function withIds(root: Root, caller: Caller): string {
  const project = `${mine}-${caller}`;
  const ids: Record<string, string> = {
    'Query.project': mine,
    'Mutation.createProject': project,
    'Mutation.retryJob': endedJobId,
    'Mutation.revokeToken': spareTokenId,
    'Mutation.updateProject': mine,
    'Mutation.deleteSchedule': scheduleId,
    'Mutation.triggerSchedule': scheduleId,
    'Mutation.updateSchedule': scheduleId,
  };
  return root.query.replaceAll(/ID_OF_\w+/g, ids[root.path] ?? jobId);
}

async function answerOf(root: Root, caller: Caller): Promise<{ answer: Answer; text: string }> {
  const query = withIds(root, caller);
  if (root.kind === 'subscription') return firstOf(query, caller);
  const { result, text } = (await outcomeOf(query, caller)) as Outcome;
  const [error] = result.errors ?? [];
  if (error) return { answer: error.extensions.code, text };
  const value = Object.values(result.data ?? {})[0] as unknown;
  return { answer: describe(value), text };
}

async function outcomeOf(query: string, caller: Caller): Promise<Outcome> {
  const answer = await post(port, { query, token: tokens[caller] });
  return { status: answer.status, result: answer.json(), text: answer.text, open: true };
}

function describe(value: unknown): Answer {
  if (value === null || (Array.isArray(value) && value.every((item) => item === null))) return 'null';
  const { __typename: type, code, nodes } = value as { __typename?: string; code?: string; nodes?: unknown[] };
  if (type?.endsWith('Error')) return String(code);
  return nodes?.length === 0 ? 'empty' : 'data';
}

/** What a subscription says first; an expired token opens no socket. */
async function firstOf(query: string, caller: Caller): Promise<{ answer: Answer; text: string }> {
  const socket = await openSocket(port, { token: tokens[caller] }).catch((error: Error) => error);
  if (socket instanceof Error)
    return { answer: /4401/.test(socket.message) ? 'UNAUTHENTICATED' : socket.message, text: '' };
  try {
    socket.send({ id: '1', type: 'subscribe', payload: { query } });
    const { payload } = await socket.next();
    const result = (Array.isArray(payload) ? { errors: payload } : payload) as Outcome['result'];
    const text = JSON.stringify(socket.received);
    return { answer: result.errors?.[0]?.extensions.code ?? 'stream', text };
  } finally {
    await socket.close();
  }
}

function expected(root: Root, caller: Caller): Answer {
  const named = table[root.path]?.[caller];
  if (named) return named;
  if (caller === 'anonymous' || caller === 'expired') return 'UNAUTHENTICATED';
  return root.kind === 'subscription' ? 'stream' : 'data';
}

suite('Every root field', () => {
  test('is in the table, and the table has no other', () => {
    assert.deepEqual(
      Object.keys(table).sort(),
      roots()
        .map((root) => root.path)
        .sort(),
    );
  });

  // A caller that may cancel does so last: what the others are told must not depend on it.
  for (const root of roots()) {
    test(`${root.path} gives each caller what is theirs, and nothing of the project to others`, async () => {
      for (const caller of callers) {
        const { answer, text } = await answerOf(root, caller);
        assert.equal(answer, expected(root, caller), `${root.path} as ${caller}: ${text.slice(0, 600)}`);
        if (['anonymous', 'expired', 'runner', 'stranger'].includes(caller)) assertNothingOfMine(text, caller);
      }
    });
  }
});

/** What was asked for may be quoted in a refusal; nothing else of the project is in the answer. */
function assertNothingOfMine(text: string, caller: Caller): void {
  const rest = text.replaceAll(/"[^"]*message":"(?:[^"\\]|\\.)*"/g, '').replaceAll(`${mine}-${caller}`, '');
  assert.equal(rest.includes(mine), false, `${caller}: ${text}`);
  assert.equal(rest.includes(jobId), false, `${caller}: ${text}`);
}

suite('A caller', () => {
  test('with an expired token is told so, and opens no socket', async () => {
    for (const transport of ['POST', 'GET', 'SSE'] as const) {
      const { status, result } = await transports[transport](port, { query: '{ __typename }', token: tokens.expired });
      assert.equal(status, 401);
      assert.match(result.errors?.[0]?.message ?? '', /expired at/);
    }
    await assert.rejects(openSocket(port, { token: tokens.expired }), /4401/);
  });

  test('whose token expires starts nothing more on an open socket: 4403, to come back with a fresh one', async () => {
    const expiresAt = new Date(Date.now() + 700);
    const token = await createToken(port, { projectId: mine, scopes: ['READ'], expiresAt: expiresAt.toISOString() });
    const socket = await openSocket(port, { token });
    socket.send({ id: '1', type: 'subscribe', payload: { query: '{ viewer { token { name } } }' } });
    assert.equal((await socket.next()).type, 'next');
    const runner = { name: 'machine', version: '1', labels: [], gpus: [], bootId: 'boot' };
    const headers = { ...jsonType, ...bearer(tokens.runner) };
    const registered = await send(port, { path: '/runner/v1/register', headers, body: JSON.stringify(runner) });
    assert.equal(registered.status, 200, registered.text);
    await until(() => Date.now() > expiresAt.getTime(), { what: 'the end of the token' });
    socket.send({ id: '2', type: 'subscribe', payload: { query: '{ viewer { token { name } } }' } });
    assert.equal((await socket.closed).code, 4403);
    assert.deepEqual(
      socket.received.filter(({ id }) => id === '2'),
      [],
    );
  });

  test('that is nobody sees the schema, the version and itself, over every transport', async () => {
    const query = '{ __typename viewer { token { id } } serverInfo { version } __schema { queryType { name } } }';
    for (const transport of transportNames) {
      const { result } = await transports[transport](port, { query, token: null });
      assert.equal(result.errors, undefined);
      assert.equal(result.data?.['viewer'], null);
    }
  });

  test('of another project is told the same of what exists and what does not', async () => {
    const ids = [jobId, jobId.replace(/.{4}$/, '0000'), mine, 'p-missing', 'tok_missing', 'nothing', ''];
    const shapes = ids.map((id) => [
      id,
      `a: node(id: "${id}") { id } b: job(id: "${id}") { id } c: project(id: "${id}") { id }`,
    ]);
    for (const [id, fields] of shapes) {
      for (const caller of ['stranger', 'runner'] as const) {
        const { result } = await outcomeOf(`{ ${fields} nodes(ids: ["${id}"]) { id } }`, caller);
        assert.deepEqual(result, { data: { a: null, b: null, c: null, nodes: [null] } }, id);
      }
    }
    const refusals: [string, string][] = [
      [`mutation { cancelJob(input: { id: "ID" }) { ... on UserError { code message hint path } } }`, 'job'],
      [
        `mutation { submitJob(input: { spec: { projectId: "ID", model: "m", dataset: "d" } }) { ... on UserError { code message hint path } } }`,
        'project',
      ],
      [
        `mutation { createToken(input: { projectId: "ID", name: "n", scopes: [READ] }) { ... on UserError { code message hint path } } }`,
        'project',
      ],
      [
        `{ previewJob(spec: { projectId: "ID", model: "m", dataset: "d" }) { specHash command errors { code message hint path } resolved { path } } }`,
        'project',
      ],
    ];
    for (const [query, kind] of refusals) {
      const [there, missing] = kind === 'job' ? [jobId, jobId.replace(/.{4}$/, '0000')] : [mine, 'p-miss'];
      const [first, second] = [
        await outcomeOf(query.replace('ID', there), 'stranger'),
        await outcomeOf(query.replace('ID', missing), 'stranger'),
      ];
      assert.equal(first.text.replaceAll(there, '*'), second.text.replaceAll(missing, '*'));
      assert.match(first.text, /NOT_FOUND/);
    }
  });

  test('finds in lists, filters and counts only what is theirs', async () => {
    const query = `{ jobs(filter: { projectIds: ["${mine}", "${other}"] }) { totalCount nodes { id project { id } } }
      viewer { projects { totalCount nodes { id tokens { id } } } platformTokens { id } } }`;
    const { result } = await outcomeOf(query, 'stranger');
    const data = result.data as unknown as {
      jobs: unknown;
      viewer: { projects: { nodes: { id: string }[] }; platformTokens: null };
    };
    assert.deepEqual(data.jobs, { totalCount: 1, nodes: [{ id: otherJobId, project: { id: other } }] });
    assert.deepEqual(
      data.viewer.projects.nodes.map(({ id }) => id),
      [other],
    );
    assert.equal(data.viewer.platformTokens, null);
    const { text } = await outcomeOf(
      '{ viewer { projects { totalCount nodes { id } } } jobs { totalCount } }',
      'runner',
    );
    assert.deepEqual(JSON.parse(text), {
      data: { viewer: { projects: { totalCount: 0, nodes: [] } }, jobs: { totalCount: 0 } },
    });
    const tokensSeen = await outcomeOf(`{ project(id: "${mine}") { tokens { id } } }`, 'reader');
    assert.deepEqual(tokensSeen.result, { data: { project: { tokens: null } } });
  });

  test('gets no event of another project’s job, over no transport', async () => {
    for (const transport of ['POST', 'GET', 'SSE', 'WS'] as const) {
      for (const field of ['jobLogs', 'jobMetrics', 'jobUpdated', 'jobEvents']) {
        const query = `subscription { ${field}(jobId: "${jobId}") { done } }`;
        for (const caller of ['stranger', 'runner', 'anonymous'] as const) {
          const { result, open } = await transports[transport](port, { query, token: tokens[caller] });
          assert.equal(result.errors?.[0]?.extensions.code, caller === 'anonymous' ? 'UNAUTHENTICATED' : 'NOT_FOUND');
          assert.equal(result.data ?? null, null);
          assert.equal(open, true);
        }
      }
    }
    assert.equal(door.gateway.feeds.size, 0);
  });

  test('without a runner’s token is no runner', async () => {
    for (const caller of callers) {
      if (caller === 'runner') continue;
      const body = JSON.stringify({ name: 'r', version: '1', labels: [], gpus: [], bootId: 'b' });
      const headers = {
        'content-type': 'application/json',
        ...(tokens[caller] ? { authorization: `Bearer ${tokens[caller]}` } : {}),
      };
      for (const path of ['register', 'claim', `attempts/att_${jobId.slice(4)}/renew`]) {
        const answer = await fetch(`${door.url}/runner/v1/${path}`, { method: 'POST', headers, body });
        assert.ok([400, 401, 403].includes(answer.status), `${caller} ${path}: ${answer.status}`);
        if (tokens[caller] === null || caller === 'expired') assert.equal(answer.status, 401);
      }
    }
  });
});

suite('A cursor', () => {
  let second: string;
  const ask = (query: string, after: unknown) =>
    post(port, { query, variables: { after }, token: tokens.admin }).then((answer) => answer.json());
  const codeOf = async (query: string, after: unknown) => (await ask(query, after)).errors?.[0]?.extensions.code;
  const logs = (id: string) =>
    `query ($after: String) { job(id: "${id}") { logs(after: $after) { pageInfo { endCursor } } } }`;
  const jobs = (order = '') => `query ($after: String) { jobs(after: $after${order}) { pageInfo { endCursor } } }`;
  const projects = 'query ($after: String) { viewer { projects(after: $after) { pageInfo { endCursor } } } }';
  const runners = 'query ($after: String) { runners(after: $after) { pageInfo { endCursor } } }';
  const live = (field: string, id: string) =>
    `subscription ($after: String) { ${field}(jobId: "${id}", after: $after) { endCursor } }`;
  before(async () => void (second = await submitJob(port, mine)));

  async function cursorOf(query: string): Promise<string> {
    return /"endCursor":"([^"]+)"/.exec(JSON.stringify(await ask(query, null)))?.[1] ?? '';
  }

  test('of another job, another connection or another order is refused', async () => {
    const logCursor = await cursorOf(logs(jobId));
    const jobCursor = await cursorOf(jobs());
    assert.ok(logCursor && jobCursor);
    const byTime = ', orderBy: { field: UPDATED_AT }';
    const wrong: [string, string][] = [
      [logs(second), logCursor],
      [jobs(), logCursor],
      [projects, logCursor],
      [runners, logCursor],
      [logs(jobId), jobCursor],
      [jobs(byTime), jobCursor],
      [jobs(', orderBy: { direction: ASC }'), jobCursor],
    ];
    for (const [query, cursor] of wrong) assert.equal(await codeOf(query, cursor), 'CURSOR_WRONG_STREAM', query);
    for (const [field, id] of [
      ['jobLogs', second],
      ['jobMetrics', jobId],
    ] as const) {
      for (const transport of ['SSE', 'WS'] as const) {
        const operation = { query: live(field, id), variables: { after: logCursor }, token: tokens.admin };
        const { result } = await transports[transport](port, operation);
        assert.equal(result.errors?.[0]?.extensions.code, 'CURSOR_WRONG_STREAM');
      }
    }
    assert.equal((await ask(jobs(), jobCursor)).errors, undefined);
    assert.equal(await codeOf(logs(jobId), logCursor), undefined);
  });

  test('that is garbage is refused as such, whatever it is', async () => {
    const position = (...parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString('base64url');
    const garbage = [
      '',
      ' ',
      'x',
      '\0',
      '{}',
      'null',
      position(),
      position(1),
      position(2, `log:${jobId}`, 1),
      position(1, 5),
      '%%%',
      'é',
    ];
    for (const query of [logs(jobId), jobs(), projects, runners]) {
      for (const cursor of garbage) assert.equal(await codeOf(query, cursor), 'CURSOR_INVALID', `${query} ${cursor}`);
    }
    for (const parts of [[], [-1], [1.5], ['1'], [1, 2], [null], [2 ** 53]]) {
      assert.equal(await codeOf(logs(jobId), position(1, `log:${jobId}`, ...parts)), 'CURSOR_INVALID', String(parts));
    }
    const forged: [string, unknown[]][] = [
      [jobs(), ['jobs:CREATED_AT:DESC', 'yesterday', 'x']],
      [jobs(), ['jobs:CREATED_AT:DESC', '2020', 'x']],
      [jobs(), ['jobs:CREATED_AT:DESC', '-271821-04-20T00:00:00.000Z', 'x']],
      [jobs(), ['jobs:CREATED_AT:DESC', '2020-01-01T00:00:00Z', '\0']],
      [jobs(', orderBy: { field: PRIORITY }'), ['jobs:PRIORITY:DESC', 9e15, '2020-01-01T00:00:00Z', 'x']],
      [projects, ['projects', '\0']],
      [runners, ['runners', '\0']],
    ];
    for (const [query, parts] of forged) {
      assert.match(
        String(await codeOf(query, position(1, ...parts))),
        /^(CURSOR_INVALID|BAD_USER_INPUT)$/,
        String(parts),
      );
    }
  });
});
