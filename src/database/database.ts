// PORT: the database. One driver (postgres.js) and one set of migrations, in front of a Postgres
// server (DATABASE_URL) or the embedded engine. Use `db` outside of a transaction, and only its
// `tx` inside of one.
import { AsyncLocalStorage } from 'node:async_hooks';
import { fileURLToPath } from 'node:url';
import type { ExtractTablesWithRelations } from 'drizzle-orm';
import { DrizzleQueryError } from 'drizzle-orm/errors';
import type { PgDatabase, PgTransaction } from 'drizzle-orm/pg-core';
import { drizzle, type PostgresJsQueryResultHKT } from 'drizzle-orm/postgres-js';
import { migrate } from 'drizzle-orm/postgres-js/migrator';
import postgres from 'postgres';
import { Refusal } from '../errors.ts';
import { workFigures } from '../metrics-registry.ts';
import { begin } from './begin.ts';
import { startEmbedded } from './embedded.ts';
import { preparing } from './prepare.ts';
import { isPlain, openSocket } from './socket.ts';

type NoSchema = Record<string, never>;
/** Parameter of reading functions: the database itself, or a transaction. */
export type Db = PgDatabase<PostgresJsQueryResultHKT, NoSchema>;
/** A transaction. Writing functions take it first and open none. */
export type DbTransaction = PgTransaction<PostgresJsQueryResultHKT, NoSchema, ExtractTablesWithRelations<NoSchema>>;

export type Database = {
  readonly engine: 'postgres' | 'embedded';
  readonly db: Db;
  /**
   * Runs `work` in one transaction. Inside of it a query on `db` throws: on a pool of one
   * connection it would wait for ever.
   */
  transaction<T>(work: (tx: DbTransaction) => Promise<T>): Promise<T>;
  /** Resolves when the database answers; rejects when it does not within `timeoutMs`. */
  ping(timeoutMs: number): Promise<void>;
  /** Closes all connections and the embedded engine. Closing twice is fine. */
  close(): Promise<void>;
};

export type DatabaseOptions = {
  /** A Postgres server, or null for the embedded engine. */
  url: string | null;
  /** Folder of the embedded engine. */
  dataDir: string;
  /** Upper bound of connections; the embedded engine takes exactly one. */
  poolSize?: number;
  /**
   * Time after which a Postgres server cancels a statement; the embedded engine cannot cancel one.
   */
  statementTimeoutMs?: number;
};

const migrationsFolder = fileURLToPath(new URL('../../drizzle', import.meta.url));
const migrationLock = 4_717_270; // key of an advisory lock: any number, the same in every gateway
/**
 * `fetch_types` is off: on each new connection postgres.js 3.4.9 would ask for the types of arrays
 * and catch no error of that query, so a connection lost meanwhile would end the process. Drizzle
 * reads and writes arrays by itself.
 */
const quiet = { onnotice: () => {}, fetch_types: false };

/**
 * `max_pipeline`, the number of queries in flight on one connection, is unbounded: a BEGIN that
 * reached the bound would fail as one that meets a full socket does (see `socket.ts`). Requests are
 * bounded elsewhere.
 */
const pipelined = { max_pipeline: Number.MAX_SAFE_INTEGER };

/**
 * Opens the database and applies missing migrations. It waits while another gateway applies them.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  if (!options.url && options.poolSize !== undefined && options.poolSize !== 1) {
    // The embedded socket server interleaves the messages of two connections: answers would carry other queries' rows.
    throw new Error('The embedded database takes one connection only: poolSize must be 1.');
  }
  const embedded = options.url ? null : await startEmbedded(options.dataDir);
  const connect = (max: number) =>
    options.url
      ? connectServer(options.url, max, options.statementTimeoutMs)
      : connectTo({ path: embedded?.socketPath, user: 'postgres', database: 'postgres' }, max);
  try {
    await migrateUnderLock(connect(1));
  } catch (error) {
    await embedded?.close();
    throw error;
  }
  return wrap(connect(options.url ? (options.poolSize ?? 10) : 1), embedded);
}

/** Makes a client of a Postgres server. It opens no connection before the first query. */
function connectServer(url: string, max: number, statementTimeoutMs = 15_000): postgres.Sql {
  const options = {
    connect_timeout: 10,
    // Seconds between a break and the next try of a connection. By default it triples with each connection that
    // breaks: ten that break together would stay away for up to 20 s from a server that is back.
    backoff: () => 0.05 + Math.random() * 0.2,
    connection: {
      application_name: 'astraml',
      statement_timeout: statementTimeoutMs,
      idle_in_transaction_session_timeout: 5_000,
    },
  };
  return connectTo(options, max, url);
}

function connectTo(target: postgres.Options<Record<string, never>>, max: number, url?: string): postgres.Sql {
  const open = (more: object) => {
    const options = { ...quiet, ...pipelined, ...target, max, ...more };
    return url === undefined ? postgres(options) : postgres(url, options);
  };
  const client = open({});
  return isPlain(client.options) ? open({ socket: openSocket }) : client;
}

async function migrateUnderLock(client: postgres.Sql): Promise<void> {
  try {
    await client`set statement_timeout = 0`;
    await client`select pg_advisory_lock(${migrationLock})`;
    await migrate(drizzle(client), { migrationsFolder });
  } finally {
    await client.end({ timeout: 5 });
  }
}

function wrap(client: postgres.Sql, embedded: { close(): Promise<void> } | null): Database {
  const inTransaction = new AsyncLocalStorage<true>();
  const db = drizzle(guard(preparing(client), inTransaction), { casing: 'snake_case' });
  let closing: Promise<void> | undefined;
  return {
    engine: embedded ? 'embedded' : 'postgres',
    db,
    transaction(work) {
      const stopTimer = workFigures.transactionWait.startTimer();
      return db.transaction((tx) => {
        stopTimer();
        return inTransaction.run(true, () => work(tx));
      });
    },
    async ping(timeoutMs) {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`The database did not answer within ${timeoutMs} ms.`)), timeoutMs);
      });
      try {
        await Promise.race([client`select 1`, late]);
      } finally {
        clearTimeout(timer);
      }
    },
    close() {
      closing ??= client.end({ timeout: 5 }).then(() => embedded?.close());
      return closing;
    },
  };
}

/** Makes a query on the outer database throw while the caller is inside of a transaction. */
function guard(client: postgres.Sql, inTransaction: AsyncLocalStorage<true>): postgres.Sql {
  return new Proxy(client, {
    get(target, key) {
      if ((key === 'unsafe' || key === 'begin') && inTransaction.getStore()) {
        throw new Error('A query on the outer database inside of a transaction: use the transaction.');
      }
      if (key === 'begin') return (work: Parameters<typeof begin>[1]) => begin(target, (sql) => work(preparing(sql)));
      return Reflect.get(target, key) as unknown;
    },
  });
}

/** The Postgres error code of a failed query, or the socket's error code; undefined for anything else. */
export function databaseErrorCode(error: unknown): string | undefined {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

/**
 * Whether an error is a passing fault, so that the same transaction may succeed later: the
 * connection was lost, or the database has no room, is stopping, is too slow, or let another
 * transaction go first (SQLSTATE classes 08, 40, 53, 57, and 55P03).
 */
export function isPassing(error: unknown): boolean {
  return /^(08|40|53|57|55P03)|^(ECONN|CONNECT|EPIPE|ENOENT|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST|ENET)/.test(
    databaseErrorCode(error) ?? '',
  );
}

/**
 * Turns the error of a database that is away, busy or too slow into a refusal that is worth a
 * retry; null for any other error. A database that is read-only (25006) or takes no connections
 * (55000) counts as away: a standby answers so before it is promoted.
 */
export function passingFault(error: unknown): Refusal | null {
  const code = databaseErrorCode(error) ?? '';
  if (code === '57014') return new Refusal('TIMEOUT', 'The database took too long to answer.');
  const away = /^(08|57P|53|25006|55000)|^(ECONN|CONNECT|EPIPE|ENOENT|ETIMEDOUT|ENOTFOUND|EAI_AGAIN)/.test(code);
  return away ? new Refusal('UNAVAILABLE', 'The database is not available.', { retryAfterSeconds: 1 }) : null;
}
