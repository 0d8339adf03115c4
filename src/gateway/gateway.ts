// The composition root: opens the database and the bus, starts the parts of a gateway in order, and
// ends them in reverse.
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import type { TokenScope } from '../actor.ts';
import type { Bus } from '../bus/bus.ts';
import { memoryBus } from '../bus/memory.ts';
import { redisBus } from '../bus/redis.ts';
import type { Config } from '../config.ts';
import { openDatabase, passingFault } from '../database/database.ts';
import { DataDirInUse } from '../database/embedded.ts';
import { ensureDefaults } from '../defaults/defaults.ts';
import { requestFigures, workFigures } from '../metrics-registry.ts';
import { ResultBytes } from '../graphql/budget.ts';
import type { ReportBug } from '../graphql/error.ts';
import { type Consumer, startConsumer } from '../intake/consumer.ts';
import { renumberRestored } from '../job/restored.ts';
import { commit, type Store } from '../live/commit.ts';
import { Feeds } from '../live/feed.ts';
import { ensureToken } from '../project/token.ts';
import { Closers } from './closers.ts';
import { createAdmission } from './limits/admission.ts';
import { createCaps } from './limits/caps.ts';
import { Dispatcher } from './background/dispatcher.ts';
import { watchEmbedded } from './background/embedded-watch.ts';
import { closeServer, createConnectionDrain, type Drain } from './http/connection-drain.ts';
import { startJobLoops } from './background/job-loops.ts';
import { startSchedules } from './background/schedules.ts';
import { createRequestLog } from './watch/request-log.ts';
import { createLog } from './watch/log.ts';
import { createPipeline } from './graphql/pipeline.ts';
import { createHttpServer } from './http/server.ts';
import { Sessions } from './http/sessions.ts';
import { SharedExecution } from './graphql/shared-execution.ts';
import { createSockets } from './ws/sockets.ts';
import { startUpkeep } from './background/upkeep.ts';
import { createUplinkWatch } from './watch/uplink-watch.ts';

export type RunningGateway = {
  /** Address of the gateway, without a slash at the end. */
  readonly url: string;
  readonly store: Store;
  readonly feeds: Feeds;
  readonly intake: Consumer['counts'];
  readonly resultBytes: ResultBytes;
  /** Ends everything within the configured time, sooner when `hurry` is aborted. Ending twice is fine. */
  stop(hurry?: AbortSignal): Promise<void>;
};

export type FirstToken = { text: string; name: string; scopes: TokenScope[] };

/**
 * Database, bus or port are missing or taken. The message is a sentence for the person who started
 * the gateway.
 */
export class CannotStart extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'CannotStart';
  }
}

/**
 * Starts a gateway. Once it answers, the tokens `firstTokens` and the configured bootstrap tokens
 * exist.
 */
export async function startGateway(config: Config, firstTokens: readonly FirstToken[] = []): Promise<RunningGateway> {
  const closers = new Closers();
  try {
    return await start(config, firstTokens, closers);
  } catch (error) {
    await closers.close().catch(() => {}); // the first failure is the one to tell
    throw error;
  }
}

async function start(config: Config, firstTokens: readonly FirstToken[], closers: Closers): Promise<RunningGateway> {
  const log = createLog(config.logLevel);
  const report: ReportBug = (error, reference) => {
    requestFigures.bugs.inc();
    log.error({ err: error, reference }, 'bug');
  };
  const reportLoop = (error: unknown, name: string) => log.error({ err: error }, name);
  const store = await openStore(config, closers, log, report);
  await prepareStore(store, config, firstTokens);

  const feeds = new Feeds(store.bus);
  closers.defer(() => feeds.close());
  const [admission, caps, resultBytes] = [createAdmission(config), createCaps(config), new ResultBytes(config)];
  const gateway = { ...store, feeds, config: { ...config }, admission, caps, resultBytes };
  const shared = config.sharedExecution ? new SharedExecution({ context: gateway, report, resultBytes }) : null;
  const pipeline = createPipeline(gateway, report, shared);
  const sessions = await Sessions.start(store, reportLoop);
  closers.defer(() => sessions.close());
  const dispatcher = await Dispatcher.start(store, { ...config, report: (error) => reportLoop(error, 'dispatcher') });
  closers.defer(() => dispatcher.stop());

  const drain = createConnectionDrain();
  const requestLog = createRequestLog(log);
  const uplink = createUplinkWatch(store.bus, reportLoop);
  const stopping = new AbortController();
  const sockets = createSockets({ gateway, pipeline, sessions, drain, requestLog, shared, report });
  let consumer: Consumer | null = null; // started once the port is ours
  const brokenIntake = () => consumer?.broken ?? null;
  const parts = { gateway, pipeline, dispatcher, sockets, sessions, drain, requestLog, report, uplink };
  const server = createHttpServer({ ...parts, brokenIntake, stopping: stopping.signal });
  const url = await listen(server, config);
  gateway.config.publicUrl = url;

  consumer = startConsumer(store, { ...config, report: (error) => reportLoop(error, 'intake') });
  uplink.start();
  const background = [consumer, uplink, ...startJobLoops(store, consumer, reportLoop)];
  background.push(startSchedules(store, log, reportLoop), startUpkeep(store, config, reportLoop));
  if (store.database.engine === 'embedded') background.push(watchEmbedded(store.database, log));
  closers.defer(() => Promise.all(background.map((part) => part.stop())));

  const stop = async (hurry: AbortSignal) => {
    stopping.abort(); // claims are answered, `/readyz` answers 503, and new lasting connections are refused
    await closeConnections(server, drain, config.shutdownSeconds * 1000, hurry, log);
    await closers.close();
  };
  let stopped: Promise<void> | undefined;
  const stopOnce = (hurry = new AbortController().signal) => (stopped ??= stop(hurry));
  return { url, store, feeds, intake: consumer.counts, resultBytes, stop: stopOnce };
}

async function openStore(config: Config, closers: Closers, log: Logger, report: ReportBug): Promise<Store> {
  const { databaseUrl, dataDir, operationSeconds } = config;
  const options = { url: databaseUrl, dataDir, statementTimeoutMs: operationSeconds * 1000 };
  const database = await openDatabase(options).catch(explainDatabase);
  closers.defer(() => database.close());
  const bus = openBus(config, log, report);
  closers.defer(() => bus.close());
  return { database, bus };
}

/** Writes what every installation has: the first defaults and the first tokens. */
async function prepareStore(store: Store, config: Config, firstTokens: readonly FirstToken[]): Promise<void> {
  const tokens = [...firstTokens];
  if (config.bootstrapToken) tokens.push({ text: config.bootstrapToken, name: 'bootstrap', scopes: ['ADMIN'] });
  if (config.bootstrapRunnerToken) {
    tokens.push({ text: config.bootstrapRunnerToken, name: 'bootstrap runner', scopes: ['RUNNER'] });
  }
  await commit(store, async (tx) => {
    await ensureDefaults(tx);
    await renumberRestored(tx);
    for (const { text, name, scopes } of tokens) await ensureToken(tx, text, { name, scopes, projectId: null });
  });
}

/** Resolves to the address of the gateway once the port is open. */
async function listen(server: Server, { host, port, publicUrl }: Config): Promise<string> {
  server.listen(port, host);
  await once(server, 'listening').catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'EADDRINUSE') throw error;
    const way = 'Stop what listens there, or choose another one with --port or PORT.';
    throw new CannotStart(`Port ${port} on ${host} is in use. ${way}`, error);
  });
  const address = server.address() as AddressInfo;
  return publicUrl?.replace(/\/$/, '') ?? `http://${hostForUrl(host)}:${address.port}`;
}

/** Ends all connections within 85 % of the time; the rest is left for what runs behind them. */
async function closeConnections(
  server: Server,
  drain: Drain,
  totalMs: number,
  hurry: AbortSignal,
  log: Logger,
): Promise<void> {
  const connections = drain.size;
  const beganAt = performance.now();
  const cutOff = await drain.run({ spreadMs: 0.7 * totalMs, endMs: 0.8 * totalMs, hurry });
  await closeServer(server, beganAt + 0.85 * totalMs - performance.now(), hurry);
  const ms = Math.round(performance.now() - beganAt);
  if (connections > 0) log.info({ connections, cutOff, ms }, 'drained');
}

/**
 * Opens the bus. A Redis that cannot be reached does not stop the start: the gateway answers
 * requests that need none, and `/readyz` says so.
 */
function openBus({ redisUrl }: Config, log: Logger, report: ReportBug): Bus {
  workFigures.redisUp.set(1); // 1 until Redis is found to be away, and always without Redis
  if (!redisUrl) return memoryBus();
  return redisBus(redisUrl, {
    onAway(error) {
      workFigures.redisUp.set(0);
      log.warn({ err: error }, 'Redis is away');
    },
    onBack() {
      workFigures.redisUp.set(1);
      log.warn('Redis is back');
    },
    onTrouble: (error) => report(error, 'bus'),
  });
}

function explainDatabase(error: unknown): never {
  if (error instanceof DataDirInUse) throw new CannotStart(error.message, error);
  const away = passingFault(error);
  if (away) throw new CannotStart(`${away.message} Check DATABASE_URL, and that the server runs.`, error);
  throw error;
}

function hostForUrl(host: string): string {
  if (host === '0.0.0.0' || host === '::') return 'localhost';
  return host.includes(':') ? `[${host}]` : host;
}
