// A database that refuses: rows of hostile jobs, for their content and for good; every row of the log, or those of one
// gateway, for a while and with any SQLSTATE. Triggers of the test's own database do it: the product has no part in it.
import { mkdirSync, mkdtempSync, statSync, chmodSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import postgres from 'postgres';
import { type Disk, mountDisk } from './disk.ts';
import {
  hostileKinds,
  type HostileKind,
  hostileProjectId,
  refusedMetric,
  refusedPath,
  refusedRowBytes,
} from './hostile-kinds.ts';

/** Every refusal says this, so that what it led to can be told from what nobody asked for. */
export const refusalText = 'The harness refuses this row.';

/** SQLSTATE of a value that the database does not take: no class of failures that pass. */
const valueRefused = '22021';

/** The name that gateway `index` gives the database: a role of its own, by which its rows are told. */
export const roleOf = (index: number) => `gateway_${index}`;

/** Roles of so many gateways; on the server, before they connect. */
export async function createRoles(url: string, gateways: number): Promise<void> {
  await withSql(url, async (sql) => {
    for (let index = 0; index < gateways; index++) await sql.unsafe(`create role ${roleOf(index)} superuser login`);
  });
}

/** Moves a database that nobody is connected to onto a disk of its own, tables and all; its write-ahead log stays. */
export async function moveToDisk(server: string, database: string, bytes: number): Promise<Disk> {
  const parent = mkdtempSync(join(tmpdir(), 'astraml-disk-'));
  chmodSync(parent, 0o711); // the server runs as another user
  const folder = join(parent, 'tables');
  mkdirSync(folder);
  return withSql(server, async (sql) => {
    const [setting] = await sql<{ folder: string }[]>`select current_setting('data_directory') as folder`;
    const disk = mountDisk(folder, { bytes, owner: statSync(setting?.folder ?? '') });
    await sql.unsafe(`create tablespace small location '${folder}'`);
    await sql.unsafe(`alter database ${database} set tablespace small`);
    return disk;
  });
}

/** Sets the triggers up; once the tables are there. */
export async function installRefusals(databaseUrl: string): Promise<void> {
  const failing = (Object.keys(hostileKinds) as HostileKind[]).filter((kind) => 'fails' in hostileKinds[kind]);
  const isHostile = `exists (select from job where id = new.job_id and project_id = '${hostileProjectId}')`;
  const isOfKind = (kind: string) =>
    `exists (select from job where id = new.job_id and project_id = '${hostileProjectId}' and name like '%-${kind}-%')`;
  if (failing.join() !== 'nostart,noend') throw new Error('A trigger for each kind that fails stands here.');
  const refuseWhen = (name: string, on: string, condition: string) => `
    create function harness.${name}() returns trigger language plpgsql as $$ begin
      if ${condition} then raise exception '${refusalText}' using errcode = '${valueRefused}'; end if;
      return new;
    end $$;
    create trigger ${name} ${on} for each row execute function harness.${name}();`;
  await withSql(databaseUrl, (sql) =>
    sql.unsafe(`
      create schema harness;
      create table harness.refusal (gateway text, code text not null);
      create function harness.refuse() returns trigger language plpgsql as $$ declare refused text; begin
        select code into refused from harness.refusal where gateway is null or gateway = session_user limit 1;
        if refused is not null then raise exception '${refusalText}' using errcode = refused; end if;
        return new;
      end $$;
      create trigger refuse before insert on log_chunk for each row execute function harness.refuse();
      ${refuseWhen('refuse_line', 'before insert or update on log_chunk', `new.size >= ${refusedRowBytes} and ${isHostile}`)}
      ${refuseWhen('refuse_metric', 'before insert on metric', `new.name = '${refusedMetric}'`)}
      ${refuseWhen('refuse_event', 'before insert on event', `new.type = 'CHECKPOINT' and position('${refusedPath}' in new.message) > 0`)}
      ${refuseWhen('refuse_start', 'before update on attempt', `new.state = 'RUNNING' and ${isOfKind('nostart')}`)}
      ${refuseWhen('refuse_end', 'before update on attempt', `new.state = 'SUCCEEDED' and ${isOfKind('noend')}`)}
    `),
  );
}

/** Refuses every new row of the log, or those of one gateway, with this SQLSTATE, until the returned function is called. */
export async function refuseLog(
  databaseUrl: string,
  { code, gateway }: { code: string; gateway: number | null },
): Promise<() => Promise<void>> {
  const role = gateway === null ? null : roleOf(gateway);
  await withSql(databaseUrl, (sql) => sql`insert into harness.refusal ${sql({ gateway: role, code })}`);
  return () => withSql(databaseUrl, (sql) => sql`delete from harness.refusal`).then(() => {});
}

/** The whole database takes writes no more, until the returned function is called: as a replica does after a failover. */
export async function makeReadOnly(server: string, database: string): Promise<() => Promise<void>> {
  const setting = `alter database ${database} set default_transaction_read_only`;
  await withSql(server, (sql) => sql.unsafe(`${setting} = on`));
  await endConnections(server, database).catch(() => {}); // it is set, so it has to be taken back
  return async () => {
    await withSql(server, (sql) => sql.unsafe(`${setting} = off`));
    await endConnections(server, database);
  };
}

/** The database takes no connection, until the returned function is called. */
export async function closeToAll(server: string, database: string): Promise<() => Promise<void>> {
  await withSql(server, (sql) => sql.unsafe(`alter database ${database} allow_connections false`));
  await endConnections(server, database).catch(() => {}); // it is set, so it has to be taken back
  return () => withSql(server, (sql) => sql.unsafe(`alter database ${database} allow_connections true`)).then(() => {});
}

/** All places for connections are taken by somebody else, until the returned function is called. */
export async function takeAllPlaces(server: string, database: string): Promise<() => Promise<void>> {
  const others: postgres.Sql[] = [];
  const leave = async () => void (await Promise.all(others.map((sql) => sql.end({ timeout: 2 }))));
  try {
    for (let full = false; !full;) {
      const next = Array.from({ length: 10 }, () => connect(server));
      others.push(...next);
      const taken = await Promise.allSettled(next.map((sql) => sql`select 1`));
      full = taken.some(({ status }) => status === 'rejected') || others.length > 200;
    }
    const [first] = others;
    if (first) await endConnectionsBy(first, database);
    // Places that became free are taken before the gateways are back.
    const last = Array.from({ length: 20 }, () => connect(server));
    others.push(...last);
    await Promise.allSettled(last.map((sql) => sql`select 1`));
  } catch (error) {
    await leave();
    throw error;
  }
  return leave;
}

async function endConnections(server: string, database: string): Promise<void> {
  await withSql(server, (sql) => endConnectionsBy(sql, database));
}

async function endConnectionsBy(sql: postgres.Sql, database: string): Promise<void> {
  await sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${database}`;
}

async function withSql<T>(url: string, work: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = connect(url);
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 2 });
  }
}

function connect(url: string): postgres.Sql {
  return postgres(url, { max: 1, connect_timeout: 3, idle_timeout: 0, fetch_types: false, onnotice: () => {} });
}
