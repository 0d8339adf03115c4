// Parts that a machine may lack, with the reason for which their tests are skipped. The list is
// complete: under CI=true a skip for any other reason fails the run (`test/run.ts`), so that no
// test goes missing unseen.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { findGroupFolder } from '../../src/agent/control-group.ts';
import { becoming } from '../../src/agent/user.ts';
import { mayMakeCgroup } from './cgroup.ts';
import { findProgram } from './install.ts';
import { mayHavePostgres } from './postgres.ts';
import { mayHaveRedis } from './redis.ts';

interface Need {
  /** Reason that the skipped test prints. */
  otherwise: string;
  isHere(): boolean;
}

const groupFolder = await findGroupFolder();

const needs = {
  postgres: {
    otherwise: 'no Postgres server programs here, and installing them needs root on Debian',
    isHere: mayHavePostgres,
  },
  'own postgres': {
    otherwise: 'no Postgres server of our own to kill (ASTRAML_TEST_DATABASE_URL is set, or no programs)',
    isHere: () => !process.env.ASTRAML_TEST_DATABASE_URL && mayHavePostgres(),
  },
  redis: {
    otherwise: 'no redis-server here, and installing it needs root on Debian',
    isHere: mayHaveRedis,
  },
  'own redis': {
    otherwise: 'no Redis server of our own to kill (ASTRAML_TEST_REDIS_URL is set, or no program)',
    isHere: () => !process.env.ASTRAML_TEST_REDIS_URL && mayHaveRedis(),
  },
  haproxy: { otherwise: 'no haproxy here', isHere: () => findProgram('haproxy') !== undefined },
  'container engine': {
    otherwise: 'neither docker nor podman answers here',
    isHere: () => runs('docker', ['info']) || runs('podman', ['info']),
  },
  gpu: { otherwise: 'no NVIDIA GPU here (nvidia-smi lists none)', isHere: () => runs('nvidia-smi', ['-L']) },
  python: { otherwise: 'no Python 3 here', isHere: () => runs('python3', ['-c', '']) },
  root: { otherwise: 'a file of another user can be made by root only', isHere: () => process.getuid?.() === 0 },
  tmpfs: {
    otherwise: 'mounting a small tmpfs (a disk that fills up) needs root on Linux',
    isHere: () => runs('unshare', ['--mount', 'mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', tmpdir()]),
  },
  'cgroup freezer': {
    otherwise: 'no freezer of cgroups version 1 that we may write (a process that SIGKILL does not end)',
    isHere: () => mayMakeCgroup('freezer'),
  },
  'cgroup v2': {
    otherwise: 'no control groups of version 2 that we may write to (a group for each attempt)',
    isHere: () => groupFolder !== null,
  },
  'own uids': {
    otherwise: 'a uid for each project takes root on Linux, setpriv, and a Node that other users can run',
    isHere: () => runs(...becoming({ uid: 70_000, groups: [], home: '/' }, [process.execPath, '-e', ''])),
  },
  'cgroup memory': {
    otherwise: 'no memory controller of cgroups that we may write (a real lack of memory)',
    isHere: () => mayMakeCgroup('memory'),
  },
  libfaketime: {
    otherwise: 'no libfaketime here (another clock for one process)',
    isHere: () => libfaketime() !== undefined,
  },
  chromium: { otherwise: 'no Chromium or Chrome here', isHere: () => chromium() !== undefined },
  'npm registry': {
    otherwise: 'no npm registry answers, or it lacks a package of examples/clients',
    isHere: () => runs('npm', ['view', 'graphql-ws@6.4.2', 'version']),
  },
  'linux /proc': { otherwise: 'this system has no /proc', isHere: () => existsSync('/proc/self/stat') },
} satisfies Record<string, Need>;

export type NeedName = keyof typeof needs;

const known = new Map<NeedName, boolean>();

/**
 * Returns options for `test`: `test('…', skipUnless('redis'), async () => …)`. Skips with the
 * reason of the first absent part.
 */
export function skipUnless(...names: NeedName[]): { skip?: string } {
  const absent = names.find((name) => !isHere(name));
  return absent ? { skip: reasonOf(absent) } : {};
}

export function isHere(name: NeedName): boolean {
  const found = known.get(name) ?? needs[name].isHere();
  known.set(name, found);
  return found;
}

/** Whether the reason of a skip is one of this list. */
export function isListed(reason: string): boolean {
  return Object.keys(needs).some((name) => isNeed(name) && reasonOf(name) === reason);
}

/** Returns the path of a browser that playwright-core can drive; undefined for none. */
export function chromium(): string | undefined {
  const mac = '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome';
  const found = findProgram('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable');
  return found ?? (existsSync(mac) ? mac : undefined);
}

/** Returns the path of libfaketime for LD_PRELOAD; undefined when it is not installed. */
export function libfaketime(): string | undefined {
  return [
    `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/faketime/libfaketime.so.1`,
    '/usr/lib/faketime/libfaketime.so.1',
    '/usr/lib64/faketime/libfaketime.so.1',
  ].find((file) => existsSync(file));
}

function isNeed(name: string): name is NeedName {
  return name in needs;
}

function reasonOf(name: NeedName): string {
  return `needs ${name}: ${needs[name].otherwise}`;
}

function runs(program: string, args: string[]): boolean {
  return spawnSync(program, args, { stdio: 'ignore', timeout: 10_000 }).status === 0;
}
