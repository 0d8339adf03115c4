// A real Redis for a test file. A server that runs already is never used, unless
// ASTRAML_TEST_REDIS_URL names it; no test may kill that one.
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canInstall, findProgram, installProgram } from './install.ts';
import { type Server, startServer } from './server.ts';

export interface RedisServer extends Pick<Server, 'pid' | 'log' | 'kill' | 'restart' | 'stop'> {
  url: string;
  /** False for the server of ASTRAML_TEST_REDIS_URL, where `kill` and `restart` throw. */
  ours: boolean;
}

/** Data that survives `kill`: nothing, all but the last second, or every answered command. */
export type Persistence = 'none' | 'aof everysec' | 'aof always';

export async function startRedis(options: { persistence?: Persistence } = {}): Promise<RedisServer> {
  const named = process.env.ASTRAML_TEST_REDIS_URL;
  if (named) return namedServer(named);
  await installProgram('redis-server', () => findRedis() !== undefined);
  const file = findRedis() ?? '';
  const folder = mkdtempSync(join(tmpdir(), 'redis-'));
  const server = await startServer({
    name: 'Redis',
    folder,
    command: (port) => ({ file, args: serverArgs(folder, port, options.persistence ?? 'none') }),
    check: ping,
    endSignal: 'SIGTERM',
    stopSignal: 'KILL',
  });
  return { ...server, url: `redis://127.0.0.1:${server.port}`, ours: true };
}

export function findRedis(): string | undefined {
  return findProgram('redis-server', 'valkey-server');
}

export function mayHaveRedis(): boolean {
  return Boolean(process.env.ASTRAML_TEST_REDIS_URL) || findRedis() !== undefined || canInstall();
}

function namedServer(url: string): RedisServer {
  const refuse = () => Promise.reject(new Error('the server that ASTRAML_TEST_REDIS_URL names is not ours to end'));
  return { url, ours: false, pid: () => undefined, log: () => '', kill: refuse, restart: refuse, stop: async () => {} };
}

function serverArgs(folder: string, port: number, persistence: Persistence): string[] {
  const [kind, fsync] = persistence.split(' ');
  return [
    ...['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder, '--daemonize', 'no', '--save', ''],
    ...['--maxmemory', '256mb', '--maxmemory-policy', 'noeviction'],
    ...(kind === 'aof' ? ['--appendonly', 'yes', '--appendfsync', fsync ?? 'always'] : ['--appendonly', 'no']),
  ];
}

// Throws until Redis answers PING; it answers -LOADING while it loads its file.
async function ping(port: number): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1', timeout: 1_000 });
  socket.once('timeout', () => socket.destroy(new Error('no answer to PING')));
  try {
    socket.write('PING\r\n');
    const [answer] = await once(socket, 'data');
    if (!String(answer).startsWith('+PONG')) throw new Error(`PING was answered by ${String(answer)}`);
  } finally {
    socket.destroy();
  }
}
