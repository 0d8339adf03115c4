// Every code that an error can have, provoked at a real gateway: what a client is told is what the table in errors.ts
// says, and the page of the code explains it.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import { isEnumType } from 'graphql';
import postgres from 'postgres';
import { type RefusalCode, refusals } from '../../src/errors.ts';
import { ApiError, createClient } from '../../src/client/client.ts';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { skipUnless } from '../support/absent.ts';
import {
  adminToken,
  bearer,
  createProject,
  createToken,
  dataOf,
  type Door,
  type HttpAnswer,
  jsonType,
  openDoor,
  post,
  send,
  transportNames,
  transports,
} from '../support/door.ts';
import { commandLine } from '../support/cli.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

/** What a client is told, wherever it stands in the answer. */
type SentError = {
  code: string;
  httpStatus: number;
  retryable: boolean;
  retryAfterSeconds: number | null;
  docsUrl?: string;
};

let door: Door;
let limited: Door;
let server: PostgresServer | undefined;
let real: Door;
before(async () => {
  door = await openDoor({ LOG_LEVEL: 'silent' }, { engine: 'embedded' });
  await createProject(door.port, 'p-codes');
  limited = await openDoor(
    {
      ASTRAML_OPERATION_SECONDS: '1',
      ASTRAML_MAX_IN_FLIGHT: '1',
      ASTRAML_RATE_LIMIT_POINTS: '20',
      ASTRAML_RATE_LIMIT_WINDOW_SECONDS: '60',
    },
    { engine: 'embedded' },
  );
  if (skipUnless('own postgres').skip !== undefined) return;
  server = await startPostgres();
  real = await openDoor({ DATABASE_URL: server.url, ASTRAML_OPERATION_SECONDS: '5', LOG_LEVEL: 'silent' });
  await createProject(real.port, 'p-codes');
});
after(async () => {
  await door.close();
  await limited.close();
  if (server) await real.close();
  await server?.stop();
  await expectNoLeaks();
});

const errorFields = '... on UserError { code httpStatus retryable retryAfterSeconds docsUrl }';

/** A typed error of a mutation. */
async function typed(name: string, input: object, at = door, token = adminToken): Promise<SentError> {
  const type = `${name.charAt(0).toUpperCase()}${name.slice(1)}Input`;
  const query = `mutation ($input: ${type}!) { ${name}(input: $input) { ${errorFields} } }`;
  const answer = await post(at.port, { query, variables: { input }, token });
  const { data, errors } = answer.json();
  if (errors) return errorOf(answer);
  assert.equal(answer.status, 200, 'a typed error is data');
  return data?.[name] as unknown as SentError;
}

/** An error of the request. */
async function refused(query: string, at = door, token: string | null = adminToken): Promise<SentError> {
  return errorOf(await post(at.port, { query, token }, { accept: 'application/graphql-response+json' }));
}

function errorOf(answer: HttpAnswer): SentError {
  const [error] = answer.json().errors ?? [];
  assert.ok(error, answer.text);
  const { code, retryable, retryAfterSeconds } = error.extensions;
  const after = answer.headers['retry-after'];
  assert.equal(after, retryAfterSeconds === undefined ? undefined : String(retryAfterSeconds));
  return {
    code,
    httpStatus: answer.status,
    retryable: retryable === true,
    retryAfterSeconds: after === undefined ? null : Number(after),
  };
}

const spec = { projectId: 'p-codes', model: 'm', dataset: 'd' };
const defaults = '{ serverInfo { defaultsVersion } }';

/** Keeps the one connection of the embedded database while `work` runs, so that whoever asks it waits. */
async function whileBusy<T>(at: Door, work: () => Promise<T>): Promise<T> {
  let release = () => {};
  const released = new Promise<void>((resolve) => (release = resolve));
  let begun = () => {};
  const holds = new Promise<void>((resolve) => (begun = resolve));
  const held = at.gateway.store.database.transaction(async () => {
    begun();
    await released;
  });
  await holds;
  try {
    return await work();
  } finally {
    release();
    await held;
  }
}

/** Uses up what a token may ask for. */
async function useUp(): Promise<void> {
  for (let asked = 0; asked < 30; asked++) {
    const answer = await post(limited.port, { query: '{ viewer { token { id } } }' });
    if (answer.status === 429) return;
  }
  throw new Error('30 operations were answered');
}

const provoke: Record<RefusalCode, () => Promise<SentError>> = {
  INVALID_INPUT: () => typed('submitJob', { spec: { ...spec, hyperparams: { batchSize: 0 } } }),
  NOT_FOUND: () => typed('cancelJob', { id: 'job_none' }),
  async PERMISSION_DENIED() {
    const reader = await createToken(door.port, { projectId: 'p-codes', scopes: ['READ'] });
    return typed('submitJob', { spec }, door, reader);
  },
  INVALID_STATE: () => typed('setPolicy', { projectId: 'p-codes', rules: [], ifRevision: 99 }),
  async IDEMPOTENCY_CONFLICT() {
    await typed('submitJob', { spec, idempotencyKey: 'one' });
    return typed('submitJob', { spec: { ...spec, model: 'other' }, idempotencyKey: 'one' });
  },
  ALREADY_EXISTS: () => typed('createProject', { id: 'p-codes' }),
  async POLICY_VIOLATION() {
    await createProject(door.port, 'p-strict');
    await typed('setPolicy', { projectId: 'p-strict', rules: [{ path: 'hyperparams.epochs', max: 20 }] });
    return typed('submitJob', { spec: { ...spec, projectId: 'p-strict', hyperparams: { epochs: 50 } } });
  },
  UNAUTHENTICATED: () => refused('{ jobs { nodes { id } } }', door, null),
  BAD_USER_INPUT: () => refused('{ jobz }'),
  CURSOR_INVALID: () => refused('{ jobs(after: "x") { nodes { id } } }'),
  async CURSOR_WRONG_STREAM() {
    await typed('submitJob', { spec });
    const { jobs } = await dataOf(door.port, { query: '{ jobs(first: 1) { pageInfo { endCursor } } }' });
    const { endCursor } = jobs?.['pageInfo'] as unknown as { endCursor: string };
    return refused(`{ runners(after: "${endCursor}") { nodes { id } } }`);
  },
  OPERATION_TOO_LARGE: () => refused(`{ ${'jobs(first: 100) { nodes { attempts { number } } } '.repeat(60)} }`),
  async IN_PROGRESS() {
    assert.ok(server);
    const other = postgres(server.url, { max: 1, onnotice: () => {} });
    try {
      return (await other.begin(async (tx) => {
        await tx`insert into idempotency_key (scope, mutation, key, fingerprint, input, object_id)
          values ('p-codes', 'submitJob', 'two', '', '{}', 'job_first')`;
        return typed('submitJob', { spec, idempotencyKey: 'two' }, real); // while the first one is not committed
      })) as SentError;
    } finally {
      await other.end();
    }
  },
  async RATE_LIMITED() {
    await useUp();
    return refused('{ viewer { token { id } } }', limited);
  },
  async UNAVAILABLE() {
    assert.ok(server);
    await server.kill();
    try {
      return await refused(defaults, real, null);
    } finally {
      await server.restart();
    }
  },
  OVERLOADED: () =>
    whileBusy(limited, async () => {
      const first = refused(defaults, limited, null);
      const second = await until(
        async () => {
          const answer = await post(limited.port, { query: defaults, token: null });
          return answer.status === 503 && errorOf(answer);
        },
        { what: 'a refusal beside the operation in flight' },
      );
      assert.equal((await first).code, 'TIMEOUT');
      return second;
    }),
  TIMEOUT: () => whileBusy(limited, () => refused(defaults, limited, null)),
  async INTERNAL() {
    const { db } = door.gateway.store.database;
    await db.execute(sql`alter table job rename to job_hidden`);
    try {
      return await refused('{ jobs { nodes { id } } }');
    } finally {
      await db.execute(sql`alter table job_hidden rename to job`);
    }
  },
};

/** Seconds that are told; the codes that are not named tell none. */
const seconds: Partial<Record<RefusalCode, (seconds: number | null) => boolean>> = {
  IN_PROGRESS: (seconds) => seconds === 1,
  OVERLOADED: (seconds) => seconds === 1,
  TIMEOUT: (seconds) => seconds === 1,
  UNAVAILABLE: (seconds) => seconds === 1,
  RATE_LIMITED: (seconds) => seconds !== null && seconds > 0 && seconds <= 60,
};
const needsPostgres: RefusalCode[] = ['IN_PROGRESS', 'UNAVAILABLE'];

suite('Every code', () => {
  for (const [code, provoked] of Object.entries(provoke) as [RefusalCode, () => Promise<SentError>][]) {
    test(
      `${code} is told as the table says`,
      needsPostgres.includes(code) ? skipUnless('own postgres') : {},
      async () => {
        const refusal = await provoked();
        const { httpStatus, retryable } = refusals[code];
        assert.deepEqual(
          { code: refusal.code, httpStatus: refusal.httpStatus, retryable: refusal.retryable },
          { code, httpStatus, retryable },
        );
        const expected = seconds[code] ?? ((value: number | null) => value === null);
        assert.ok(expected(refusal.retryAfterSeconds), `retryAfterSeconds ${refusal.retryAfterSeconds}`);
        if (refusal.docsUrl !== undefined) assert.ok(refusal.docsUrl.endsWith(`/errors/${code}`), refusal.docsUrl);
      },
    );
  }

  test('has a page that docsUrl points to', async () => {
    const refusal = await provoke.NOT_FOUND();
    assert.equal(refusal.docsUrl, `${door.url}/errors/NOT_FOUND`);
    for (const [code, { meaning, action }] of Object.entries(refusals)) {
      const page = await send(door.port, { method: 'GET', path: `/errors/${code}` });
      assert.equal(page.status, 200);
      const text = page.text.replace(/<\/?code>/g, '`').replaceAll('&lt;', '<');
      for (const part of [code, meaning, action]) assert.ok(text.includes(part), part);
    }
    assert.equal((await send(door.port, { method: 'GET', path: '/errors' })).status, 200);
    for (const path of ['/errors/NOTHING', '/errors/constructor', '/errors/NOT_FOUND/x', '/errorsx']) {
      assert.equal((await send(door.port, { method: 'GET', path })).status, 404, path);
    }
  });

  test('of the schema is in the table', () => {
    const type = schema.getType('UserErrorCode');
    assert.ok(isEnumType(type));
    for (const { name } of type.getValues()) assert.ok(name in refusals, name);
    const listed = [...(schema.description ?? '').matchAll(/`([A-Z_]{6,})`/g)].map((match) => match[1] ?? '');
    const known = new Set([...type.getValues().map(({ name }) => name), ...listed]);
    for (const code of Object.keys(refusals)) assert.ok(known.has(code), `${code} is in the schema`);
  });
});

suite('The share of a token', () => {
  test('is the same over every transport and over plain HTTP, and other callers keep theirs', async () => {
    await useUp();
    for (const transport of transportNames) {
      const { result } = await transports[transport](limited.port, { query: '{ viewer { token { id } } }' });
      const extensions = result.errors?.[0]?.extensions;
      assert.equal(extensions?.code, 'RATE_LIMITED', transport);
      assert.ok(Number(extensions?.['retryAfterSeconds']) > 0);
    }
    const headers = { ...jsonType, ...bearer(adminToken) };
    const rest = await send(limited.port, {
      path: '/v1/jobs',
      headers,
      body: JSON.stringify({ project_id: 'p-codes' }),
    });
    assert.equal(rest.status, 429);
    assert.ok(Number(rest.headers['retry-after']) > 0);
    assert.equal((await post(limited.port, { query: defaults, token: null })).status, 200);
  });
});

suite('A client that is told to wait', () => {
  test('does not try again when there is no time for that, and the command line says so with exit code 7', async () => {
    await useUp();
    const client = createClient({ url: limited.url, token: adminToken, retryForMs: 8_000 });
    const since = performance.now();
    await assert.rejects(client.request('{ viewer { token { id } } }', {}, { repeatable: true }), (error) => {
      assert.ok(error instanceof ApiError);
      assert.deepEqual([error.code, error.httpStatus, error.retryable], ['RATE_LIMITED', 429, true]);
      assert.ok(error.retryAfterSeconds !== null && error.retryAfterSeconds > 8);
      return true;
    });
    assert.ok(performance.now() - since < 4_000, 'at once');
    const cli = commandLine(() => ({ ASTRAML_URL: limited.url, ASTRAML_TOKEN: adminToken }));
    try {
      const { code, stderr } = await cli.run(['jobs']);
      assert.equal(code, 7, stderr);
      assert.match(stderr, /it has new ones in \d+ s\./);
    } finally {
      cli.remove();
    }
  });

  test('comes back after that time when there is some', async () => {
    const client = createClient({ url: limited.url, token: null, retryForMs: 8_000 });
    const answered = await whileBusy(limited, async () => {
      const other = refused(defaults, limited, null);
      const request = client.request<{ serverInfo: unknown }>(defaults, {}, { repeatable: true });
      const { code } = await other; // one of the two is in flight until it is late, the other one is too many
      assert.ok(['TIMEOUT', 'OVERLOADED'].includes(code), code);
      return { request };
    });
    assert.ok((await answered.request).serverInfo);
  });
});

suite('On a Postgres server', skipUnless('own postgres'), () => {
  test('an operation that takes too long ends with its statement', async () => {
    assert.ok(server);
    const { url } = await createDatabase(server); // apart from the loops of the other gateway
    const late = await openDoor({ DATABASE_URL: url, ASTRAML_OPERATION_SECONDS: '1', LOG_LEVEL: 'silent' });
    const other = postgres(url, { max: 2, onnotice: () => {} });
    try {
      await other.begin(async (tx) => {
        await tx`lock table job in access exclusive mode`;
        const refusal = await refused('{ jobs { nodes { id } } }', late);
        assert.equal(refusal.code, 'TIMEOUT');
        const waiting = async () => {
          const rows = await other`select pid || ' ' || query_start as statement from pg_stat_activity
            where application_name = 'astraml' and datname = current_database() and state = 'active' and wait_event_type = 'Lock'`;
          return rows.map(({ statement }) => String(statement));
        };
        const then = await waiting();
        const isOver = async () => !(await waiting()).some((statement) => then.includes(statement));
        await until(isOver, { timeoutMs: 3_000, what: 'the end of the statement' });
      });
    } finally {
      await other.end();
      await late.close();
    }
  });
});
