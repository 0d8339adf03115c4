// A real Postgres for a test file, and a new database for each test. A server that runs already is
// never used, unless ASTRAML_TEST_DATABASE_URL names it; no test may kill that one.
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { realpathSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import postgres from 'postgres';
import { canInstall, findProgram, installProgram, isExecutable } from './install.ts';
import { type Owner, type Server, startServer } from './server.ts';

export interface PostgresServer extends Pick<Server, 'pid' | 'log' | 'kill' | 'restart' | 'stop'> {
  /** Address of the database `postgres`, as superuser. */
  url: string;
  /** False for the server of ASTRAML_TEST_DATABASE_URL, where `kill` and `restart` throw. */
  ours: boolean;
}

export interface TestDatabase {
  name: string;
  url: string;
  /**
   * Drops the database and ends its connections. May be called twice; not needed before `stop` of a
   * server with `ours`.
   */
  drop(): Promise<void>;
}

/**
 * Starts a Postgres. With `durable`, fsync is on, as in production. Without it, which is faster, a
 * commit still survives `kill`, which ends processes, not the machine.
 */
export async function startPostgres(options: { durable?: boolean } = {}): Promise<PostgresServer> {
  const named = process.env.ASTRAML_TEST_DATABASE_URL;
  if (named) return namedServer(named);
  await installProgram('postgresql', () => findPostgres() !== undefined);
  const bin = findPostgres() ?? '';
  const owner = unprivilegedOwner();
  const folder = mkdtempSync(join(tmpdir(), 'postgres-'));
  const data = join(folder, 'data');
  if (owner) chownSync(folder, owner.uid, owner.gid);
  try {
    createCluster(bin, folder, data, owner);
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
  const server = await startServer({
    name: 'Postgres',
    folder,
    owner,
    command: (port) => ({
      file: join(bin, 'postgres'),
      args: serverArgs(data, folder, port, options.durable ?? false),
    }),
    check: (port) => ping(urlOf(port)),
    endSignal: 'SIGINT',
    stopSignal: 'QUIT',
    cleanUp: () => removeSharedMemory(data),
  });
  return { ...server, url: urlOf(server.port), ours: true };
}

/**
 * Creates a database for one test, as a copy of `template` if set, e.g. a migrated one. The
 * template must have no connections.
 */
export async function createDatabase(
  server: Pick<PostgresServer, 'url'>,
  options: { template?: Pick<TestDatabase, 'name'> } = {},
): Promise<TestDatabase> {
  const name = `test_${randomBytes(8).toString('hex')}`;
  await administer(server.url, `create database ${name} template ${options.template?.name ?? 'template0'}`);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return {
    name,
    url: url.href,
    drop: () => administer(server.url, `drop database if exists ${name} with (force)`),
  };
}

/** Makes one fresh database. `stop` removes it, and ends its server when the server is ours. */
export async function startDatabase(): Promise<{ url: string; stop(): Promise<void> }> {
  const server = await startPostgres();
  if (server.ours) return server;
  const { url, drop } = await createDatabase(server);
  return { url, stop: drop };
}

/**
 * Returns the folder with `postgres` and `initdb`: from PATH, else the newest one of Debian's
 * packages.
 */
export function findPostgres(): string | undefined {
  const onPath = findProgram('postgres');
  const debian = '/usr/lib/postgresql';
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : [];
  return [onPath && dirname(realpathSync(onPath)), ...versions.map((version) => join(debian, version, 'bin'))].find(
    (bin) => bin && isExecutable(join(bin, 'postgres')) && isExecutable(join(bin, 'initdb')),
  );
}

export function mayHavePostgres(): boolean {
  return Boolean(process.env.ASTRAML_TEST_DATABASE_URL) || findPostgres() !== undefined || canInstall();
}

function namedServer(url: string): PostgresServer {
  const refuse = () => Promise.reject(new Error('the server that ASTRAML_TEST_DATABASE_URL names is not ours to end'));
  return { url, ours: false, pid: () => undefined, log: () => '', kill: refuse, restart: refuse, stop: async () => {} };
}

// initdb takes a second, so the test files of a run copy one result; `test/run.ts` makes and
// removes its folder.
function createCluster(bin: string, folder: string, data: string, owner: Owner | undefined): void {
  const inFolder = { ...owner, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' } };
  const shared = process.env.ASTRAML_TEST_SHARED;
  const cluster = shared && join(shared, `postgres${bin.replaceAll('/', '-')}`);
  if (cluster && existsSync(cluster)) {
    execFileSync('cp', ['-R', '-p', cluster, data], { ...inFolder, stdio: 'pipe' });
    return;
  }
  const args = ['-D', data, '-U', 'postgres', '--auth=trust', '--no-sync', '--no-locale', '-E', 'UTF8'];
  execFileSync(join(bin, 'initdb'), args, { ...inFolder, stdio: 'pipe' });
  if (!cluster) return;
  const copy = mkdtempSync(`${cluster}-`);
  chmodSync(copy, 0o755);
  if (owner) chownSync(copy, owner.uid, owner.gid);
  execFileSync('cp', ['-R', '-p', data, join(copy, 'data')], { ...inFolder, stdio: 'pipe' });
  try {
    renameSync(join(copy, 'data'), cluster);
  } catch {
    // another test file was first
  }
  rmSync(copy, { recursive: true, force: true });
}

function serverArgs(data: string, folder: string, port: number, durable: boolean): string[] {
  const settings: Record<string, string | number> = {
    port,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: folder,
    max_connections: 100,
    shared_buffers: '32MB',
    dynamic_shared_memory_type: 'mmap', // leaves no file in /dev/shm after a kill
    timezone: 'UTC',
    log_timezone: 'UTC',
    fsync: durable ? 'on' : 'off',
    full_page_writes: durable ? 'on' : 'off',
  };
  return ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
}

// Returns another user when this process is root, since Postgres refuses to run as root.
function unprivilegedOwner(): Owner | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  const user = users.find(([name]) => name === 'postgres') ?? users.find(([name]) => name === 'nobody');
  if (!user) throw new Error('Postgres refuses to run as root, and there is no user postgres or nobody');
  return { uid: Number(user[2]), gid: Number(user[3]) };
}

// A killed server leaves one small System V segment, which the kernel would keep; line 7 of the pid
// file names it.
function removeSharedMemory(data: string): void {
  const file = join(data, 'postmaster.pid');
  if (!existsSync(file)) return;
  const id = readFileSync(file, 'utf8').split('\n')[6]?.trim().split(/\s+/)[1];
  if (id) spawnSync('ipcrm', ['-m', id], { stdio: 'ignore' });
}

function urlOf(port: number): string {
  return `postgres://postgres@127.0.0.1:${port}/postgres`;
}

async function ping(url: string): Promise<void> {
  await administer(url, 'select 1');
}

async function administer(url: string, statement: string): Promise<void> {
  const sql = postgres(url, { max: 1, connect_timeout: 5, onnotice: () => {} });
  try {
    await sql.unsafe(statement);
  } finally {
    await sql.end({ timeout: 5 });
  }
}
