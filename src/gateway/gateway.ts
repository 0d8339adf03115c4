// The composition root: opens the database and the bus, starts the parts of a gateway in order, and
// ends them in reverse.
import { once } from 'node:events';
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
import { createAdmission } from './limits/admission.ts';
import { createCaps } from './limits/caps.ts';
import { Dispatcher } from './background/dispatcher.ts';
import { closeServer, createConnectionDrain } from './http/connection-drain.ts';
import { startJobLoops } from './background/job-loops.ts';
import { runDueSchedules } from '../schedule/due.ts';
import { startLoop } from './background/loops.ts';
import { createRequestLog } from './watch/request-log.ts';
import { createLog } from './watch/log.ts';
import { createPipeline } from './graphql/pipeline.ts';
import { createHttpServer } from './http/server.ts';
import { startSessions } from './http/sessions.ts';
import { createSharedExecution } from './graphql/shared-execution.ts';
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

/** Pause between two looks for due times of schedules. */
const scheduleEveryMs = 1_000;
/** Pause between two pings of the embedded database. */
const embeddedWatchMs = 10_000;
/** An embedded database without an answer for this long is dead, and the process ends. */
const embeddedDeadMs = 30_000;

/**
 * Starts a gateway. Once it answers, the tokens `firstTokens` and the configured bootstrap tokens
 * exist.
 */
export async function startGateway(config: Config, firstTokens: readonly FirstToken[] = []): Promise<RunningGateway> {
  const log = createLog(config.logLevel);
  const report: ReportBug = (error, reference) => {
    requestFigures.bugs.inc();
    log.error({ err: error, reference }, 'bug');
  };
  const database = await openDatabase({
    url: config.databaseUrl,
    dataDir: config.dataDir,
    statementTimeoutMs: config.operationSeconds * 1000,
  }).catch(explainDatabase);
  const bus = openBus(config, log, report);
  const store: Store = { database, bus };
  const stopping = new AbortController();
  const ended = new AbortController();
  try {
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
  } catch (error) {
    await bus.close();
    await database.close();
    throw error;
  }

  const feeds = new Feeds(bus);
  const admission = createAdmission(config);
  const resultBytes = new ResultBytes(config);
  const gateway = { database, bus, feeds, config: { ...config }, admission, caps: createCaps(config), resultBytes };
  const shared = config.sharedExecution ? createSharedExecution({ context: gateway, report, resultBytes }) : null;
  const pipeline = createPipeline(gateway, report, shared);
  const sessions = await startSessions(store, (error) => log.error({ err: error }, 'tokens'));
  const dispatcher = await Dispatcher.start(store, {
    ...config,
    report: (error) => log.error({ err: error }, 'dispatcher'),
  });
  const drain = createConnectionDrain();
  const requestLog = createRequestLog(log);
  const intake: { consumer?: Consumer } = {}; // set once the gateway listens
  const sockets = createSockets({ gateway, pipeline, sessions, drain, requestLog, shared, report });
  const uplink = createUplinkWatch(bus, (error, name) => log.error({ err: error }, name));
  const server = createHttpServer({
    gateway,
    pipeline,
    dispatcher,
    sockets,
    sessions,
    drain,
    requestLog,
    report,
    brokenIntake: () => intake.consumer?.broken ?? null,
    uplink,
    stopping: stopping.signal,
  });
  try {
    server.listen(config.port, config.host);
    await once(server, 'listening');
  } catch (error) {
    await dispatcher.stop();
    await sessions.close();
    feeds.close();
    await bus.close();
    await database.close();
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'EADDRINUSE') throw error;
    const address = `Port ${config.port} on ${config.host}`;
    throw new CannotStart(
      `${address} is in use. Stop what listens there, or choose another one with --port or PORT.`,
      error,
    );
  }
  const { port } = server.address() as AddressInfo;
  const url = config.publicUrl?.replace(/\/$/, '') ?? `http://${hostForUrl(config.host)}:${port}`;
  gateway.config.publicUrl = url;
  const consumer = startConsumer(store, { ...config, report: (error) => log.error({ err: error }, 'intake') });
  intake.consumer = consumer;
  uplink.start();
  const loops = startJobLoops(store, consumer, (error, name) => log.error({ err: error }, name));
  const held = new Map<string, number>();
  const schedules = startLoop({
    name: 'schedules',
    everyMs: scheduleEveryMs,
    step: (signal) =>
      runDueSchedules(store, {
        signal,
        held,
        report: (error, scheduleId) => log.error({ err: error, scheduleId }, 'bug'),
      }),
    report: (error, name) => log.error({ err: error }, name),
  });
  const upkeep = startUpkeep(store, config, (error, name) => log.error({ err: error }, name));
  const watch = database.engine === 'embedded' ? watchEmbedded() : undefined;

  function watchEmbedded(): NodeJS.Timeout {
    return setInterval(() => {
      database.ping(embeddedDeadMs).catch(() => {
        if (ended.signal.aborted) return;
        log.fatal('The embedded database answers no more.');
        process.exit(1);
      });
    }, embeddedWatchMs).unref();
  }

  let stopped: Promise<void> | undefined;
  const stop = async (hurry: AbortSignal) => {
    const connections = drain.size;
    const beganAt = performance.now();
    // claims are answered, `/readyz` answers 503, and new lasting connections are refused
    stopping.abort();
    const totalMs = config.shutdownSeconds * 1000;
    const cutOff = await drain.run({ spreadMs: 0.7 * totalMs, endMs: 0.8 * totalMs, hurry });
    await closeServer(server, beganAt + 0.85 * totalMs - performance.now(), hurry);
    const ms = Math.round(performance.now() - beganAt);
    if (connections > 0) log.info({ connections, cutOff, ms }, 'drained');
    ended.abort();
    clearInterval(watch);
    await Promise.all(loops.map((loop) => loop.stop()));
    await schedules.stop();
    await upkeep.stop();
    await Promise.all([consumer.stop(), uplink.stop(), dispatcher.stop()]);
    await sessions.close();
    feeds.close();
    await bus.close();
    await database.close();
  };
  return {
    url,
    store,
    feeds,
    intake: consumer.counts,
    resultBytes,
    stop: (hurry = new AbortController().signal) => (stopped ??= stop(hurry)),
  };
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
