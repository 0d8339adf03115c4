// What the faults happen to: Postgres, Redis, two gateways and three runners, each a process of its own, and between
// any two of them a proxy. Runners and their supervisors, commands included, make a "machine", found by its work folder.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newTokenText } from '../../src/project/token.ts';
import { isHere, libfaketime } from '../support/absent.ts';
import { type Child, spawnNode } from '../support/child.ts';
import { guard } from '../support/guard.ts';
import { freePort } from '../support/port.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { Proxy } from '../support/proxy.ts';
import { type Persistence, type RedisServer, startRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';
import { Counters } from './counters.ts';
import { type Disk, mountDisk } from './disk.ts';
import { createRoles, installRefusals, moveToDisk, roleOf } from './refusing.ts';

const jobsARunner = 3;
const gatewayCount = 2;
const startMs = 120_000;
/** More than a run needs: memory is taken only for what is written. */
const databaseDiskBytes = 2 * 1024 ** 3;
const machineDiskBytes = 8 * 1024 ** 2;

export type Gateway = {
  readonly port: number;
  readonly metricsPort: number;
  /** Where clients and runners reach it; between it and Postgres; between it and Redis. */
  readonly links: { front: Proxy; postgres: Proxy; redis: Proxy };
  child: Child;
  /** Down on purpose. */
  down: boolean;
};

export type Machine = {
  readonly name: string;
  readonly workDir: string;
  /** Its disk is small and its own: it can be filled. */
  readonly smallDisk: boolean;
  readonly links: { gateway: Proxy; redis: Proxy };
  runner: Child;
  down: boolean;
};

export type World = {
  readonly postgres: PostgresServer;
  readonly redis: RedisServer;
  readonly databaseUrl: string;
  readonly databaseName: string;
  /** Disk of the database's tables; null where nothing can be mounted. */
  readonly databaseDisk: Disk | null;
  readonly token: string;
  readonly gateways: Gateway[];
  readonly machines: Machine[];
  readonly witnessDir: string;
  readonly counters: Counters;
  /** Says the time of the second gateway, e.g. `+3600`; null where no library can do that. */
  readonly setClock: ((offset: string) => void) | null;
  startGateway(gateway: Gateway): Promise<void>;
  startRunner(machine: Machine): Promise<void>;
  /** Processes of a machine: its runner, the supervisors, their commands. */
  processesOf(machine: Machine): { pid: number; isSupervisor: boolean }[];
  /** What all processes printed, ended ones too. */
  output(): string;
  stop(): Promise<void>;
};

export type WorldOptions = {
  persistence: Persistence;
  /** Folder with `bin/astraml.mjs`. */
  product: string;
  whenCut: 'continue' | 'stop';
  /** A machine that is too slow to start a supervisor within a lease needs a longer one. */
  leaseSeconds: number;
};

export async function startWorld(options: WorldOptions): Promise<World> {
  const [postgres, redis] = await Promise.all([startPostgres(), startRedis({ persistence: options.persistence })]);
  const database = await createDatabase(postgres);
  await createRoles(postgres.url, gatewayCount);
  const root = mkdtempSync(join(tmpdir(), 'astraml-faults-'));
  const watchdog = guard({ name: 'the world of faults', folder: root });
  const witnessDir = join(root, 'witness');
  mkdirSync(witnessDir);
  const [token, runnerToken] = [newTokenText(), newTokenText()];
  const secretKey = `faults:${Buffer.alloc(32, 7).toString('base64')}`;
  const binary = join(options.product, 'bin/astraml.mjs');
  const all: Child[] = [];
  const proxies: Proxy[] = [];
  const link = async (...targets: number[]) => {
    const proxy = await Proxy.open(...targets);
    proxies.push(proxy);
    return proxy;
  };
  const clockFile = join(root, 'clock');
  const setClock = isHere('libfaketime') ? (offset: string) => writeFileSync(clockFile, `${offset}\n`) : null;
  setClock?.('+0');
  const fakeClock = (index: number): Record<string, string> => {
    if (!setClock || index === 0) return {};
    return {
      LD_PRELOAD: libfaketime() ?? '',
      FAKETIME_TIMESTAMP_FILE: clockFile,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    };
  };
  const databaseDisk = isHere('tmpfs') ? await moveToDisk(postgres.url, database.name, databaseDiskBytes) : null;
  const disks: Disk[] = databaseDisk ? [databaseDisk] : [];
  const gateways: Gateway[] = [];
  const begin = (args: string[], env: Record<string, string>): Child => {
    const child = spawnNode([binary, ...args], { env, cwd: root });
    all.push(child);
    return child;
  };
  const via = (url: string, proxy: Proxy, user?: string) => {
    const address = new URL(url);
    address.port = String(proxy.port);
    if (user) address.username = user;
    return address.href;
  };
  const portOf = (url: string) => Number(new URL(url).port);

  const gatewayEnvironment = (gateway: Gateway) => ({
    NODE_OPTIONS: `--import ${new URL('./collecting.ts', import.meta.url).href}`,
    PORT: String(gateway.port),
    DATABASE_URL: via(database.url, gateway.links.postgres, roleOf(gateways.indexOf(gateway))),
    REDIS_URL: via(redis.url, gateway.links.redis),
    ASTRAML_RUNNER_REDIS_URL: redis.url,
    ASTRAML_BOOTSTRAP_TOKEN: token,
    ASTRAML_BOOTSTRAP_RUNNER_TOKEN: runnerToken,
    ASTRAML_SECRET_KEYS: secretKey,
    ASTRAML_RUNNER_LEASE_SECONDS: String(options.leaseSeconds),
    ASTRAML_SHUTDOWN_SECONDS: '4',
    ASTRAML_METRICS_PORT: String(gateway.metricsPort),
    LOG_LEVEL: 'warn',
    ...fakeClock(gateways.indexOf(gateway)),
  });
  const startGateway = async (gateway: Gateway) => {
    let ended = true;
    const answers = async () => {
      if (ended) {
        // One that finds its database away at the start ends, and whoever looks after it starts it again.
        ended = false;
        gateway.child = begin(['serve'], gatewayEnvironment(gateway));
        void gateway.child.untilEnd({ timeoutMs: startMs }).then(
          () => (ended = true),
          () => {},
        );
      }
      const url = `http://127.0.0.1:${gateway.port}/readyz`;
      return fetch(url, { signal: AbortSignal.timeout(2_000) }).then(
        (answer) => answer.ok,
        () => false,
      );
    };
    await until(answers, { timeoutMs: startMs, everyMs: 100, what: 'a gateway answers' }).catch((error: unknown) => {
      throw new Error(gateway.child.output(), { cause: error });
    });
    gateway.down = false;
  };
  const startRunner = async (machine: Machine) => {
    machine.runner = begin(
      [
        ...['runner', 'start', '--name', machine.name, '--work-dir', machine.workDir],
        ...['--grace', '1', '--gpus', `${jobsARunner}`, '--when-cut', options.whenCut],
      ],
      {
        ASTRAML_URL: `http://127.0.0.1:${machine.links.gateway.port}`,
        REDIS_URL: via(redis.url, machine.links.redis),
        ASTRAML_RUNNER_TOKEN: runnerToken,
      },
    );
    machine.down = false;
    await machine.runner.untilLine(/"event":"ready"/, { timeoutMs: startMs }).catch(() => {}); // its gateway may be down
  };

  for (let index = 0; index < gatewayCount; index++) {
    const [port, metricsPort] = [await freePort(), await freePort()];
    const links = {
      front: await link(port),
      postgres: await link(portOf(postgres.url)),
      redis: await link(portOf(redis.url)),
    };
    gateways.push({ port, metricsPort, links, child: undefined as unknown as Child, down: true });
  }
  await Promise.all(gateways.map(startGateway));
  await installRefusals(database.url);
  const machines: Machine[] = [];
  for (let index = 0; index < 3; index++) {
    const fronts = gateways.map(({ links }) => links.front.port);
    const links = { gateway: await link(...fronts), redis: await link(portOf(redis.url)) };
    const workDir = join(root, `machine-${index}`);
    const smallDisk = index === 0 && isHere('tmpfs');
    if (smallDisk) {
      mkdirSync(workDir);
      disks.push(mountDisk(workDir, { bytes: machineDiskBytes }));
    }
    machines.push({
      name: `machine-${index}`,
      workDir,
      smallDisk,
      links,
      runner: undefined as unknown as Child,
      down: true,
    });
  }
  // Supervisors outlive their runner, and would outlive us.
  const killAll = () => machines.forEach(killMachine);
  process.once('exit', killAll);
  await Promise.all(machines.map(startRunner));
  const counters = new Counters(gateways.map(({ metricsPort }) => metricsPort));

  return {
    postgres,
    redis,
    databaseUrl: database.url,
    databaseName: database.name,
    databaseDisk,
    token,
    gateways,
    machines,
    witnessDir,
    counters,
    setClock,
    startGateway,
    startRunner,
    processesOf,
    output: () => all.map((child) => child.output()).join('\n'),
    async stop() {
      counters.stop();
      for (const machine of machines) killMachine(machine);
      await Promise.all(machines.map(({ runner }) => runner.stop({ timeoutMs: 5_000 })));
      await Promise.all(gateways.map(({ child }) => child.stop({ timeoutMs: 6_000 })));
      await Promise.all(proxies.map((proxy) => proxy[Symbol.asyncDispose]()));
      await Promise.all([postgres.stop(), redis.stop()]);
      process.off('exit', killAll);
      watchdog.release();
      await Promise.all(disks.map((disk) => disk.unmount()));
      rmSync(root, { recursive: true, force: true });
    },
  };
}

/** Ends a machine as a power cut does: nothing of it can react to the end of something else of it. */
export function killMachine(machine: Machine): void {
  for (const signal of ['SIGSTOP', 'SIGKILL'] as const) signalMachine(machine, signal);
}

export function signalMachine(machine: Machine, signal: NodeJS.Signals): void {
  for (const { pid } of processesOf(machine)) {
    try {
      process.kill(pid, signal);
    } catch {
      // it ended meanwhile
    }
  }
}

/** By work folder, which stands in the command line of a runner, and in the environment of commands. */
function processesOf(machine: Machine): { pid: number; isSupervisor: boolean }[] {
  const found: { pid: number; isSupervisor: boolean }[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const command = readFileSync(`/proc/${name}/cmdline`, 'utf8');
      const isSupervisor = command.includes('supervisor-process.ts');
      const text = command + readFileSync(`/proc/${name}/environ`, 'utf8');
      const port = `127.0.0.1:${machine.links.gateway.port}\0`; // a supervisor inherits its runner's environment
      if (text.includes(machine.workDir) || text.includes(port)) found.push({ pid: Number(name), isSupervisor });
    } catch {
      // it ended meanwhile, or is not ours
    }
  }
  return found;
}
