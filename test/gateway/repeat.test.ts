// What is sent twice happens once: every mutation of the schema with the same input, and with the same key where it takes
// one, makes no second object; and each leaves an event with its actor. A mutation that is added needs an entry below;
// without one a test fails.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import { getNamedType, isInputObjectType, isUnionType } from 'graphql';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { setAt } from '../../src/spec/resolve.ts';
import { createToken, dataOf, type Door, openDoor, post, submitJob } from '../support/door.ts';

const project = 'p-repeat';
let door: Door;
before(async () => {
  door = await openDoor();
  await ask(`createProject(input: { id: "${project}", command: ["true"] }) { __typename }`);
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

const spec = { projectId: project, model: 'm', dataset: 'd' };
const commanded = { ...spec, command: ['true'] };
const never = '0 0 29 2 *';

type Entry = {
  /** The input, after what it needs has been made. */
  input: () => object | Promise<object>;
  /** Code of the refusal that says of a repeat that it was done before; absent where a repeat succeeds. */
  repeated?: 'ALREADY_EXISTS' | 'NOT_FOUND';
};

const entries: Record<string, Entry> = {
  submitJob: { input: () => ({ spec }) },
  cancelJob: { input: async () => ({ id: await submitJob(door.port, project) }) },
  retryJob: { input: async () => ({ id: await endedJob(), hyperparams: { lr: 1 } }) },
  updateJob: { input: async () => ({ id: await submitJob(door.port, project), tags: ['a'], priority: 3 }) },
  createProject: { input: () => ({ id: 'p-second', command: ['true'] }), repeated: 'ALREADY_EXISTS' },
  updateProject: { input: () => ({ id: project, name: 'Another name' }) },
  createToken: { input: () => ({ projectId: project, name: 't', scopes: ['READ'] }) },
  revokeToken: { input: async () => ({ id: await newTokenId() }) },
  setPolicy: { input: () => ({ projectId: project, rules: [{ path: 'hyperparams.epochs', max: 20 }] }) },
  setSecret: { input: () => ({ projectId: project, name: 'TOKEN', value: 'value of it' }) },
  deleteSecret: {
    input: async () => {
      await ask(`setSecret(input: { projectId: "${project}", name: "GONE", value: "v" }) { __typename }`);
      return { projectId: project, name: 'GONE' };
    },
    repeated: 'NOT_FOUND',
  },
  createSchedule: { input: () => ({ spec: commanded, cron: never, name: 'created' }) },
  updateSchedule: { input: async () => ({ id: await newSchedule('updated'), paused: true }) },
  triggerSchedule: { input: async () => ({ id: await newSchedule('triggered') }) },
  deleteSchedule: { input: async () => ({ id: await newSchedule('deleted') }), repeated: 'NOT_FOUND' },
  publishDefaults: { input: async () => ({ version: 'v9.9', values: await currentValues() }) },
  setCurrentDefaults: {
    input: async () => {
      const values = await currentValues();
      const query = `mutation ($values: JSONObject!) {
        publishDefaults(input: { version: "v9.8", values: $values }) { __typename ... on UserError { code message } }
      }`;
      await dataOf(door.port, { query, variables: { values } });
      return { version: 'v9.8' };
    },
  },
};

async function ask(mutation: string): Promise<Record<string, Record<string, never>>> {
  return dataOf(door.port, { query: `mutation { ${mutation} }` });
}

async function endedJob(): Promise<string> {
  const id = await submitJob(door.port, project);
  await ask(`cancelJob(input: { id: "${id}" }) { __typename }`);
  return id;
}

async function newTokenId(): Promise<string> {
  const token = await createToken(door.port, { projectId: project, scopes: ['READ'] });
  const { viewer } = await dataOf(door.port, { query: '{ viewer { token { id } } }', token });
  return (viewer as unknown as { token: { id: string } }).token.id;
}

async function newSchedule(name: string): Promise<string> {
  const query = `mutation ($input: CreateScheduleInput!) {
    createSchedule(input: $input) { ... on CreateSchedulePayload { schedule { id } } ... on UserError { code message } }
  }`;
  const { createSchedule } = await dataOf(door.port, {
    query,
    variables: { input: { spec: commanded, cron: never, name } },
  });
  return (createSchedule as unknown as { schedule: { id: string } }).schedule.id;
}

async function currentValues(): Promise<Record<string, unknown>> {
  const { defaults } = await dataOf(door.port, { query: '{ defaults { values { path value } } }' });
  const values: Record<string, unknown> = {};
  for (const { path, value } of (defaults as unknown as { values: { path: string; value: unknown }[] }).values) {
    if (path === 'augmentation.probability') values['augmentation'] = { probability: value };
    else setAt(values, path, value);
  }
  return values;
}

const mutations = Object.values(schema.getMutationType()?.getFields() ?? {});

type Result = { __typename: string; code?: string; message?: string; replayed?: boolean };

async function send(field: (typeof mutations)[number], input: object): Promise<Result> {
  const [argument] = field.args;
  const union = getNamedType(field.type);
  const payloads = isUnionType(union) ? union.getTypes().filter((type) => 'replayed' in type.getFields()) : [];
  const replayed = payloads.map((type) => `... on ${type.name} { replayed }`).join(' ');
  const query = `mutation ($input: ${String(argument?.type)}) {
    result: ${field.name}(input: $input) { __typename ${replayed} ... on UserError { code message } }
  }`;
  const { data, errors } = (await post(door.port, { query, variables: { input } })).json();
  assert.ok(data, JSON.stringify(errors));
  return data['result'] as unknown as Result;
}

const isKeyed = (field: (typeof mutations)[number]) => {
  const input = getNamedType(field.args[0]!.type);
  return isInputObjectType(input) && 'idempotencyKey' in input.getFields();
};

/** Rows of every table but the events: a repeat may leave an event, never another object. */
async function countRows(): Promise<Record<string, number>> {
  const { db } = door.gateway.store.database;
  const tables = await db.execute<{ name: string }>(
    sql`select table_name as name from information_schema.tables where table_schema = 'public' order by 1`,
  );
  const counts: Record<string, number> = {};
  for (const { name } of tables) {
    if (name === 'event') continue;
    const [row] = await db.execute<{ count: number }>(sql`select count(*)::int as count from ${sql.identifier(name)}`);
    counts[name] = row?.count ?? 0;
  }
  return counts;
}

async function countOwnEvents(): Promise<number> {
  const { viewer } = await dataOf(door.port, { query: '{ viewer { token { id } } }' });
  const { id } = (viewer as unknown as { token: { id: string } }).token;
  const [row] = await door.gateway.store.database.db.execute<{ count: number }>(
    sql`select count(*)::int as count from event where actor_id = ${id}`,
  );
  return row?.count ?? 0;
}

suite('a mutation that is sent twice', () => {
  test('has an entry here, each of them', () => {
    assert.deepEqual(Object.keys(entries).sort(), mutations.map(({ name }) => name).sort());
  });

  for (const field of mutations) {
    test(`${field.name} makes no second object, and leaves an event with its actor`, async () => {
      const entry = entries[field.name];
      assert.ok(entry);
      const key = isKeyed(field) ? { idempotencyKey: `key of ${field.name}` } : {};
      const input = { ...(await entry.input()), ...key };
      const eventsBefore = await countOwnEvents();
      const first = await send(field, input);
      assert.match(first.__typename, /Payload$/, JSON.stringify(first));
      assert.ok((await countOwnEvents()) > eventsBefore, 'it leaves an event');

      const before = await countRows();
      const second = await send(field, input);
      assert.equal(second.code, entry.repeated, JSON.stringify(second));
      assert.deepEqual(await countRows(), before);
      if (isKeyed(field)) assert.deepEqual([first.replayed, second.replayed], [false, true]);
    });
  }
});
