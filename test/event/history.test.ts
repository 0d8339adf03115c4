// Who did what: every mutation of the schema leaves an event with its actor, and each caller reads what is theirs.
// A mutation that is added needs a line in the table below; without one a test fails.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import {
  createProject,
  createSchedule,
  createToken,
  dataOf,
  type Door,
  openDoor,
  post,
  submitJob,
} from '../support/door.ts';

const mine = 'p-mine';
const other = 'p-other';

type Entry = {
  id: string;
  type: string;
  time: string;
  actor: { id: string; name: string } | null;
  message: string;
  job: { id: string } | null;
  data: Record<string, unknown> | null;
};
type Page = {
  nodes: Entry[];
  edges: { cursor: string }[];
  pageInfo: { hasNextPage: boolean; hasPreviousPage: boolean; startCursor: string | null; endCursor: string | null };
};

let door: Door;
let port: number;
/** Administers the platform; `tokenId` is its id. */
let boss: string;
let bossId: string;

before(async () => {
  door = await openDoor({}, { engine: 'embedded' }); // every mutation on the engine that has one connection
  port = door.port;
  boss = await createToken(port, { projectId: null, scopes: ['ADMIN'] });
  bossId = await idOf(boss);
  await createProject(port, mine);
  await createProject(port, other);
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

async function idOf(token: string): Promise<string> {
  const { viewer } = await dataOf(port, { query: '{ viewer { token { id } } }', token });
  return (viewer as unknown as { token: { id: string } }).token.id;
}

const fields = `nodes { id type time actor { id name } message job { id } data } edges { cursor }
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor }`;
const pageVariables = '$first: Int, $last: Int, $after: String, $before: String, $types: [ProjectEventType!]';
const pageArguments = 'first: $first, last: $last, after: $after, before: $before, types: $types';

/** A project's events, or for null those of the platform; null where they are not shown. */
async function read(token: string, projectId: string | null, page: Record<string, unknown> = {}): Promise<Page | null> {
  const query =
    projectId === null
      ? `query (${pageVariables}) { viewer { events: platformEvents(${pageArguments}) { ${fields} } } }`
      : `query (${pageVariables}) { project(id: "${projectId}") { events(${pageArguments}) { ${fields} } } }`;
  const data = await dataOf(port, { query, variables: { first: 100, ...page }, token });
  return (Object.values(data)[0] as unknown as { events: Page | null } | null)?.events ?? null;
}

async function newest(projectId: string | null): Promise<Entry | undefined> {
  return (await read(boss, projectId, { first: undefined, last: 1 }))?.nodes[0];
}

async function mutate(name: string, input: object): Promise<void> {
  const query = `mutation ($input: ${inputOf(name)}!) {
    result: ${name}(input: $input) { __typename ... on UserError { code message } } }`;
  await dataOf(port, { query, variables: { input }, token: boss });
}

const mutations = schema.getMutationType()?.getFields() ?? {};
const inputOf = (name: string) => String(mutations[name]?.args[0]?.type).replace('!', '');

const spec = { projectId: mine, model: 'model', dataset: 'dataset' };

/** What each mutation changes, where its event is read, and the event's type. */
const table: Record<string, { type: string; platform?: true; input: () => object | Promise<object> }> = {
  cancelJob: { type: 'STATE_CHANGED', input: async () => ({ id: await submitJob(port, mine) }) },
  createProject: { type: 'PROJECT_CREATED', input: () => ({ id: 'p-new' }) },
  createSchedule: { type: 'SCHEDULE_CREATED', input: () => ({ spec, cron: '0 0 1 1 *' }) },
  createToken: { type: 'TOKEN_CREATED', input: () => ({ projectId: mine, name: 'new', scopes: ['READ'] }) },
  deleteSchedule: { type: 'SCHEDULE_DELETED', input: async () => ({ id: await createSchedule(port, mine) }) },
  deleteSecret: {
    type: 'SECRET_DELETED',
    async input() {
      await mutate('setSecret', { projectId: mine, name: 'GONE', value: 'value-of-gone' });
      return { projectId: mine, name: 'GONE' };
    },
  },
  publishDefaults: {
    type: 'DEFAULTS_PUBLISHED',
    platform: true,
    input: async () => ({ version: 'v3.0', values: await defaults() }),
  },
  retryJob: {
    type: 'SUBMITTED',
    async input() {
      const id = await submitJob(port, mine);
      await mutate('cancelJob', { id });
      return { id };
    },
  },
  revokeToken: {
    type: 'TOKEN_REVOKED',
    input: async () => ({ id: await idOf(await createToken(port, { projectId: mine, scopes: ['READ'] })) }),
  },
  setCurrentDefaults: { type: 'DEFAULTS_CHOSEN', platform: true, input: () => ({ version: 'v3.0' }) },
  setPolicy: { type: 'POLICY_SET', input: () => ({ projectId: mine, rules: [{ path: 'resources.gpus', max: 8 }] }) },
  setSecret: { type: 'SECRET_SET', input: () => ({ projectId: mine, name: 'KEY', value: 'value-of-key' }) },
  submitJob: { type: 'SUBMITTED', input: () => ({ spec }) },
  triggerSchedule: { type: 'SUBMITTED', input: async () => ({ id: await createSchedule(port, mine) }) },
  updateJob: { type: 'EDITED', input: async () => ({ id: await submitJob(port, mine), tags: ['a'] }) },
  updateProject: { type: 'PROJECT_UPDATED', input: () => ({ id: mine, name: 'Mine' }) },
  updateSchedule: {
    type: 'SCHEDULE_UPDATED',
    input: async () => ({ id: await createSchedule(port, mine), cron: '@daily' }),
  },
};

async function defaults(): Promise<object> {
  const { defaults: current } = await dataOf(port, { query: '{ defaults { values { path value } } }' });
  const values: Record<string, Record<string, unknown>> = {};
  for (const { path, value } of (current as unknown as { values: { path: string; value: unknown }[] }).values) {
    path.split('.').reduce((at: Record<string, unknown>, key, index, keys) => {
      if (index === keys.length - 1) at[key] = value;
      return (at[key] ??= {}) as Record<string, unknown>;
    }, values);
  }
  return values;
}

suite('Every mutation', () => {
  test('is in the table, and the table has no other', () => {
    assert.deepEqual(Object.keys(table).sort(), Object.keys(mutations).sort());
  });

  for (const [name, { type, platform, input }] of Object.entries(table)) {
    test(`${name} leaves an event with its actor, which an administrator reads`, async () => {
      const values = await input();
      const projectId = platform ? null : name === 'createProject' ? 'p-new' : mine;
      const before = name === 'createProject' ? undefined : await newest(projectId);
      await mutate(name, values);
      const entry = await newest(projectId);
      assert.notEqual(entry?.id, before?.id, 'nothing was added');
      assert.deepEqual([entry?.type, entry?.actor?.id], [type, bossId], JSON.stringify(entry));
      assert.ok(entry && entry.message.length > 0 && Math.abs(Date.parse(entry.time) - Date.now()) < 60_000);
    });
  }
});

suite('The history', () => {
  test('shows a caller the events of what it may see, also by id', async () => {
    const { reader, writer, admin, stranger, platformReader } = await callers();
    await mutate('setSecret', { projectId: mine, name: 'SEEN', value: 'value-of-seen' });
    const all = await readAll(boss, mine);
    assert.ok(all.some(({ type }) => type === 'TOKEN_CREATED') && all.some(({ type }) => type === 'SECRET_SET'));
    assert.equal(JSON.stringify(all).includes('value-of'), false, 'no value of a secret is in an event');
    assert.deepEqual(await readAll(admin, mine), all);
    assert.deepEqual(
      await readAll(writer, mine),
      all.filter(({ type }) => !type.startsWith('TOKEN_')),
    );
    const open = all.filter(({ type }) => !/^(TOKEN|SECRET)_/.test(type));
    assert.deepEqual(await readAll(reader, mine), open);
    assert.deepEqual((await read(reader, mine, { types: ['TOKEN_CREATED', 'SECRET_SET'] }))?.nodes, []);
    assert.equal(await read(stranger, mine), null);

    for (const [token, shown] of [
      [admin, all],
      [reader, open],
      [stranger, []],
    ] as const) {
      const query = 'query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on ProjectEvent { message } } }';
      const ids = all.slice(0, 100).map(({ id }) => id);
      const { nodes } = await dataOf(port, { query, variables: { ids }, token });
      const messages = new Map(shown.map(({ id, message }) => [id, message]));
      const expected = ids.map((id) =>
        messages.has(id) ? { __typename: 'ProjectEvent', id, message: messages.get(id) } : null,
      );
      assert.deepEqual(nodes, expected);
    }

    assert.equal((await read(boss, null))?.nodes.length !== 0, true);
    for (const token of [reader, writer, admin, stranger, platformReader]) assert.equal(await read(token, null), null);
    const platform = await readAll(boss, null);
    assert.ok(
      platform.every(({ type }) => /^(TOKEN|DEFAULTS)_/.test(type)),
      JSON.stringify(platform),
    );
    assert.ok(platform.some(({ type, actor }) => type === 'TOKEN_CREATED' && actor?.name === 'bootstrap'));
  });

  test('is read in pages both ways, each event once, and its jobs in their order', async () => {
    await mutate('cancelJob', { id: await submitJob(port, mine) });
    const all = await readAll(boss, mine);
    assert.equal(new Set(all.map(({ id }) => id)).size, all.length);
    const onward: Entry[] = [];
    for (let after: string | null = null; ;) {
      const page: Page | null = await read(boss, mine, { first: 3, after });
      onward.push(...(page?.nodes ?? []));
      after = page?.pageInfo.endCursor ?? null;
      if (!page?.pageInfo.hasNextPage) break;
    }
    const backward: Entry[] = [];
    for (let before: string | null = null; ;) {
      const page: Page | null = await read(boss, mine, { first: undefined, last: 4, before });
      backward.unshift(...(page?.nodes ?? []));
      before = page?.pageInfo.startCursor ?? null;
      if (!page?.pageInfo.hasPreviousPage) break;
    }
    assert.deepEqual([onward, backward], [all, all]);
    for (const [job, events] of Map.groupBy(all, (entry) => entry.job?.id)) {
      if (job) assert.equal(events[0]?.type, 'SUBMITTED', JSON.stringify(events));
    }
    const submissions = await read(boss, mine, { types: ['SUBMITTED'] });
    assert.deepEqual(
      submissions?.nodes.map(({ id }) => id),
      all.filter(({ type }) => type === 'SUBMITTED').map(({ id }) => id),
    );
  });

  test('takes no cursor of another history, and none that was made up', async () => {
    const cursor = (await read(boss, mine, { first: 1 }))?.edges[0]?.cursor;
    const codeOf = async (projectId: string, after: string | undefined) => {
      const query = `query ($after: String) { project(id: "${projectId}") { events(after: $after) { nodes { id } } } }`;
      return (await post(port, { query, variables: { after }, token: boss })).json().errors?.[0]?.extensions.code;
    };
    assert.equal(await codeOf(mine, cursor), undefined);
    assert.equal(await codeOf(other, cursor), 'CURSOR_WRONG_STREAM');
    const forged = Buffer.from(JSON.stringify([1, `history:${mine}`, 1, 2, 3, 4])).toString('base64url');
    assert.equal(await codeOf(mine, forged), 'CURSOR_INVALID');
  });
});

async function callers() {
  return {
    reader: await createToken(port, { projectId: mine, scopes: ['READ'] }),
    writer: await createToken(port, { projectId: mine, scopes: ['WRITE'] }),
    admin: await createToken(port, { projectId: mine, scopes: ['ADMIN'] }),
    stranger: await createToken(port, { projectId: other, scopes: ['ADMIN'] }),
    platformReader: await createToken(port, { projectId: null, scopes: ['WRITE'] }),
  };
}

async function readAll(token: string, projectId: string | null): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (let after: string | null = null; ;) {
    const page: Page | null = await read(token, projectId, { after });
    entries.push(...(page?.nodes ?? []));
    after = page?.pageInfo.endCursor ?? null;
    if (!page?.pageInfo.hasNextPage) return entries;
  }
}
