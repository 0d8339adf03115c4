// `astraml serve`: one gateway, on a Postgres and a Redis that any number of gateways share.
import { setTimeout as sleep } from 'node:timers/promises';
import { type Config, readConfig } from '../../config.ts';
import { startGateway } from '../../gateway/gateway.ts';
import { serveMetrics } from '../../gateway/watch/metrics.ts';
import { usage } from '../failure.ts';
import { signalledTwice } from '../signal.ts';

const hint = 'For one gateway on this machine, with its own database and runner, there is `astraml dev`.';

/** Milliseconds for the rest of the shutdown after a second signal. */
const hurryMs = 1_500;

/**
 * Runs until a signal ends it; resolves with the exit code. Prints its address to stdout, and logs
 * JSON lines to stderr.
 */
export async function runServe(): Promise<number> {
  const config = readEnvironment();
  const { first: ended, second } = signalledTwice();
  const metrics = config.metricsPort === 0 ? null : await serveMetrics(config.metricsPort, config);
  const gateway = await Promise.race([startGateway(config), ended]);
  if (!gateway) return 0; // signal during the start, e.g. while it waited for the database
  metrics?.countIn(gateway.store);
  process.stdout.write(`listening on ${gateway.url}\n`);
  await ended;
  const hurry = new AbortController();
  const hurried = second.then(() => {
    hurry.abort();
    return sleep(hurryMs);
  });
  const stopped = gateway.stop(hurry.signal).then(() => metrics?.stop());
  // Exits in time even when a part hangs, e.g. a database that does not answer.
  await Promise.race([stopped, hurried, sleep(config.shutdownSeconds * 950)]);
  return 0;
}

function readEnvironment(): Config {
  const config = readConfig(process.env);
  if (config.databaseUrl && config.redisUrl) {
    if (config.secretKeys.length > 0) return config;
    throw usage(
      'serve needs ASTRAML_SECRET_KEYS, the keys that encrypt the secrets of projects.',
      'Make one and give it to every gateway: ASTRAML_SECRET_KEYS="k1:$(openssl rand -base64 32)".',
    );
  }
  if (config.databaseUrl) {
    const why = 'gateways tell each other through Redis what they stored, and hear from runners through it';
    throw usage(`DATABASE_URL without REDIS_URL is not enough for serve: ${why}.`, hint);
  }
  const missing = config.redisUrl ? 'DATABASE_URL, the Postgres' : 'DATABASE_URL and REDIS_URL, the Postgres and Redis';
  throw usage(`serve needs ${missing} that the gateways share.`, hint);
}
