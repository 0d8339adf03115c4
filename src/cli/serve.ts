// `astraml serve`: the gateway alone, on a Postgres and a Redis that any number of gateways share.
import { type Config, ConfigError, readConfig } from '../config.ts';
import { CannotStart, startGateway } from '../gateway/gateway.ts';
import { usage } from './failure.ts';
import { signalled } from './signal.ts';

/** Runs until a signal ends it; resolves with the exit code. Logs JSON lines on standard error. */
export async function runServe(): Promise<number> {
  const config = readEnvironment();
  const ended = signalled();
  const gateway = await startGateway(config).catch((error: unknown) => {
    throw error instanceof CannotStart ? usage(error.message) : error;
  });
  process.stdout.write(`listening on ${gateway.url}\n`);
  await ended;
  await gateway.stop();
  return 0;
}

function readEnvironment(): Config {
  let config: Config;
  try {
    config = readConfig(process.env);
  } catch (error) {
    throw error instanceof ConfigError ? usage(error.message) : error;
  }
  const missing = [
    ...(config.databaseUrl ? [] : ['DATABASE_URL: the Postgres that the gateways share']),
    ...(config.redisUrl ? [] : ['REDIS_URL: the Redis that tells gateways and runners of each other']),
  ];
  if (missing.length === 0) return config;
  throw usage(`serve needs\n  ${missing.join('\n  ')}`, 'One gateway without them is `astraml dev`.');
}
