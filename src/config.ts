// Reads and checks the environment once, and reports all problems together, with secrets masked.
// variables.ts lists the variables.
import { readFileSync } from 'node:fs';
import { type SecretKey, type ValuesOf, type Variable, variables } from './variables.ts';

export type { SecretKey } from './variables.ts';

/** Default room for connections beside the websockets, e.g. HTTP requests. */
const connectionsBesideSockets = 4_000;

export type Config = {
  host: string;
  port: number;
  /** Null for the address on which the gateway listens, which is known only then. */
  publicUrl: string | null;
  hosts: string[] | null;
  corsOrigins: string[];
  dataDir: string;
  databaseUrl: string | null;
  redisUrl: string | null;
  runnerRedisUrl: string | null;
  bootstrapRunnerToken: string | null;
  bootstrapToken: string | null;
  /** The first key encrypts, all keys decrypt; empty when none is set. */
  secretKeys: SecretKey[];
  graphiql: boolean;
  console: boolean;
  introspection: boolean;
  maxBodyBytes: number;
  maxDepth: number;
  maxOperationCost: number;
  operationSeconds: number;
  maxInFlight: number;
  maxResultBytes: number;
  maxInFlightBytes: number;
  /** 0 switches the limit off. */
  rateLimitPoints: number;
  rateLimitWindowSeconds: number;
  sharedExecution: boolean;
  maxSubscriptionsPerSocket: number;
  maxSubscriptionsPerToken: number;
  maxSocketsPerToken: number;
  maxSockets: number;
  maxMetricNames: number;
  maxConnections: number;
  logRetentionDays: number;
  metricRawDays: number;
  metricWindowDays: number;
  leaseSeconds: number;
  shutdownSeconds: number;
  /** 0 switches the port off. */
  metricsPort: number;
  logLevel: string;
};

/** Error with all problems of the environment, one per line. */
export class ConfigError extends Error {
  constructor(problems: string[]) {
    super(
      `The configuration has ${problems.length === 1 ? 'a problem' : `${problems.length} problems`}:\n  ${problems.join('\n  ')}`,
    );
    this.name = 'ConfigError';
  }
}

/**
 * Reads the environment. Throws one ConfigError that names every problem. An empty variable counts
 * as unset.
 */
export function readConfig(env: Record<string, string | undefined>): Config {
  const problems: string[] = [];
  const values = Object.fromEntries(
    Object.entries<Variable>(variables).map(([name, entry]) => [name, readVariable(name, entry, env, problems)]),
  ) as ValuesOf<typeof variables>;
  const { ASTRAML_MAX_CONNECTIONS: connections, ASTRAML_MAX_SOCKETS: sockets } = values;
  if (connections && connections <= sockets) {
    problems.push(
      `ASTRAML_MAX_CONNECTIONS="${connections}": must be more than ASTRAML_MAX_SOCKETS, which is ${sockets}: each socket is a connection too, and without one more nobody else is answered.`,
    );
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return {
    host: values.HOST,
    port: values.PORT,
    publicUrl: values.ASTRAML_PUBLIC_URL,
    hosts: values.ASTRAML_HOSTS,
    corsOrigins: values.ASTRAML_CORS_ORIGINS,
    dataDir: values.ASTRAML_DATA_DIR,
    databaseUrl: values.DATABASE_URL,
    redisUrl: values.REDIS_URL,
    runnerRedisUrl: values.ASTRAML_RUNNER_REDIS_URL ?? values.REDIS_URL,
    bootstrapRunnerToken: values.ASTRAML_BOOTSTRAP_RUNNER_TOKEN,
    bootstrapToken: values.ASTRAML_BOOTSTRAP_TOKEN,
    secretKeys: values.ASTRAML_SECRET_KEYS,
    graphiql: values.ASTRAML_GRAPHIQL,
    console: values.ASTRAML_CONSOLE,
    introspection: values.ASTRAML_INTROSPECTION,
    maxBodyBytes: values.ASTRAML_MAX_BODY_BYTES,
    maxDepth: values.ASTRAML_MAX_DEPTH,
    maxOperationCost: values.ASTRAML_MAX_OPERATION_COST,
    operationSeconds: values.ASTRAML_OPERATION_SECONDS,
    maxInFlight: values.ASTRAML_MAX_IN_FLIGHT,
    maxResultBytes: values.ASTRAML_MAX_RESULT_BYTES,
    maxInFlightBytes: values.ASTRAML_MAX_IN_FLIGHT_BYTES,
    rateLimitPoints: values.ASTRAML_RATE_LIMIT_POINTS,
    rateLimitWindowSeconds: values.ASTRAML_RATE_LIMIT_WINDOW_SECONDS,
    sharedExecution: values.ASTRAML_SHARED_EXECUTION,
    maxSubscriptionsPerSocket: values.ASTRAML_MAX_SUBSCRIPTIONS_PER_SOCKET,
    maxSubscriptionsPerToken: values.ASTRAML_MAX_SUBSCRIPTIONS_PER_TOKEN,
    maxSocketsPerToken: values.ASTRAML_MAX_SOCKETS_PER_TOKEN,
    maxSockets: values.ASTRAML_MAX_SOCKETS,
    maxMetricNames: values.ASTRAML_MAX_METRIC_NAMES,
    maxConnections: values.ASTRAML_MAX_CONNECTIONS ?? values.ASTRAML_MAX_SOCKETS + connectionsBesideSockets,
    logRetentionDays: values.ASTRAML_LOG_RETENTION_DAYS,
    metricRawDays: values.ASTRAML_METRIC_RAW_DAYS,
    metricWindowDays: values.ASTRAML_METRIC_WINDOW_DAYS,
    leaseSeconds: values.ASTRAML_RUNNER_LEASE_SECONDS,
    shutdownSeconds: values.ASTRAML_SHUTDOWN_SECONDS,
    metricsPort: values.ASTRAML_METRICS_PORT,
    logLevel: values.LOG_LEVEL,
  };
}

function readVariable(name: string, entry: Variable, env: Record<string, string | undefined>, problems: string[]) {
  let text: string | null = env[name] || null;
  const file = env[`${name}_FILE`];
  if (entry.secret && text === null && file) {
    try {
      text = readFileSync(file, 'utf8').trim();
    } catch {
      problems.push(`${name}_FILE: cannot read ${file}.`);
      return undefined;
    }
  }
  const parsed = entry.schema.safeParse(text ?? entry.default);
  if (parsed.success) return parsed.data;
  const shown = entry.secret ? '(hidden)' : JSON.stringify(text);
  const expected = [...new Set(parsed.error.issues.map((issue) => issue.message))].join('; ');
  problems.push(`${name}=${shown}: ${expected}. For example ${name}=${entry.example} — ${entry.meaning}`);
  return undefined;
}
