// Table of the gateway's variables: name, parser, default, meaning and example of each. config.ts,
// docs/configuration.md and `.env.example` are made from it.
import { createSecretKey, type KeyObject } from 'node:crypto';
import { z } from 'zod';

/** Parser of a whole number from `min` to `max`, with an error message for people. */
export const whole = (min: number, max = Number.MAX_SAFE_INTEGER) => {
  const error =
    max === Number.MAX_SAFE_INTEGER
      ? `must be a whole number, ${min} at least`
      : `must be a whole number from ${min} to ${max}`;
  return z.coerce.number({ error }).int(error).min(min, error).max(max, error);
};
const port = whole(0, 65_535);
const positive = whole(1);
/** Parser of one of these words, with an error message for people. */
export const oneOf = <const Options extends readonly [string, ...string[]]>(options: Options) =>
  z.enum(options, { error: `must be one of ${options.join(', ')}` });
const flag = oneOf(['true', 'false']).transform((text) => text === 'true');
const address = (protocol: RegExp, begin: string) =>
  z.url({ protocol, error: `must be an address that begins with ${begin}` }).nullable();
const httpUrl = address(/^https?$/, 'http:// or https://');
const postgresUrl = address(/^postgres(ql)?$/, 'postgres:// or postgresql://');
export const redisUrl = address(/^rediss?$/, 'redis:// or rediss://');
const token = z.string().min(32, 'must have at least 32 characters').nullable();
/** Parser of a comma-separated list. */
export const list = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== ''),
);

/**
 * A key that encrypts the data keys of secrets. Its type is KeyObject, which shows no key when it
 * is printed.
 */
export type SecretKey = { id: string; key: KeyObject };

const secretKeys = list.transform((items, context): SecretKey[] => {
  const keys = items.flatMap((item, index) => {
    const [, id, encoded] = /^([A-Za-z0-9._-]{1,64}):([A-Za-z0-9+/]{43}=?)$/.exec(item) ?? [];
    if (id && encoded) return { id, key: createSecretKey(Buffer.from(encoded, 'base64')) };
    context.addIssue(`key ${index + 1} is not id:base64 of 32 bytes; \`openssl rand -base64 32\` makes one`);
    return [];
  });
  const repeated = keys.find(({ id }, index) => keys.findIndex((other) => other.id === id) < index);
  if (repeated) context.addIssue(`two keys have the id ${repeated.id}`);
  return keys;
});

export type Variable<Schema extends z.ZodType = z.ZodType> = {
  /** Parses the text of the variable; gets null when it is unset and has no default. */
  schema: Schema;
  /** Text to parse when the variable is unset; null for none. */
  default: string | null;
  /** One or two sentences, in Markdown with code spans only. */
  meaning: string;
  example: string;
  /**
   * True for a secret: messages mask its value, and `<NAME>_FILE` may name a file that holds it.
   */
  secret?: boolean;
};

/** Parsed values of a table of variables, by name. */
export type ValuesOf<Table extends Record<string, Variable>> = {
  [Name in keyof Table]: z.output<Table[Name]['schema']>;
};

/** Every variable of the gateway. */
export const variables = {
  HOST: variable(z.string().min(1), '127.0.0.1', 'Address to listen on.', '0.0.0.0'),
  PORT: variable(port, '4000', 'Port to listen on; 0 takes a free one.', '4000'),
  ASTRAML_PUBLIC_URL: variable(
    httpUrl,
    null,
    'Address under which people reach the gateway; by default the one it listens on. Used for links and the WebSocket URL.',
    'https://ml.example',
  ),
  ASTRAML_HOSTS: variable(
    list.nullable(),
    null,
    'Host names that are answered, comma-separated, any port; others get 421. By default that of the public URL, localhost, 127.0.0.1 and [::1]. It holds for /metrics too, where plain addresses are answered as well: name the service that Prometheus asks by.',
    'ml.example,localhost',
  ),
  ASTRAML_CORS_ORIGINS: variable(
    list,
    '',
    'Exact origins of browser apps that may use the gateway, comma-separated.',
    'https://app.example',
  ),
  ASTRAML_DATA_DIR: variable(
    z.string().min(1),
    '.astraml',
    'Folder of `astraml dev`: embedded database, client.json (mode 0600), the local runner’s files.',
    '/var/lib/astraml',
  ),
  DATABASE_URL: secret(
    postgresUrl,
    null,
    'Postgres 15 or newer; without it an embedded one.',
    'postgres://astraml:…@db/astraml',
  ),
  REDIS_URL: secret(
    redisUrl,
    null,
    'Redis 7 or newer: carries messages between gateways and the uplink of runners elsewhere; without it both stay in the process.',
    'redis://gateway:…@redis:6379',
  ),
  ASTRAML_RUNNER_REDIS_URL: secret(
    redisUrl,
    null,
    'Redis address that runners are told to use; by default REDIS_URL.',
    'redis://runner:…@redis.example:6379',
  ),
  ASTRAML_BOOTSTRAP_RUNNER_TOKEN: secret(
    token,
    null,
    'First token of scope RUNNER, at least 32 characters, so that a runner can sign on to a new installation.',
    'at-least-32-random-characters…',
  ),
  ASTRAML_BOOTSTRAP_TOKEN: secret(
    token,
    null,
    'First token of a platform administrator, at least 32 characters; generated by `astraml dev` when unset.',
    'at-least-32-random-characters…',
  ),
  ASTRAML_SECRET_KEYS: secret(
    secretKeys,
    '',
    'Keys that encrypt the secrets of projects: `id:base64 of 32 bytes` (`openssl rand -base64 32`), comma-separated; the first encrypts, all decrypt. `astraml serve` needs one; `astraml dev` keeps its own in its data folder.',
    'k1:…',
  ),
  ASTRAML_GRAPHIQL: variable(flag, 'true', 'Whether GraphiQL is served at /graphql.', 'false'),
  ASTRAML_CONSOLE: variable(flag, 'true', 'Whether the page /watch, which follows a job, is served.', 'false'),
  ASTRAML_INTROSPECTION: variable(flag, 'true', 'Whether the schema can be read by introspection.', 'false'),
  ASTRAML_MAX_BODY_BYTES: variable(positive, '1048576', 'Largest request body, in bytes.', '1048576'),
  ASTRAML_MAX_DEPTH: variable(positive, '12', 'Deepest nesting of fields in an operation.', '12'),
  ASTRAML_MAX_OPERATION_COST: variable(positive, '20000', 'Most objects that an operation may ask for.', '20000'),
  ASTRAML_OPERATION_SECONDS: variable(
    whole(1, 3_600),
    '15',
    'Seconds that an operation may take, and each of its SQL statements; then it is refused with TIMEOUT. A subscription may last.',
    '15',
  ),
  ASTRAML_MAX_IN_FLIGHT: variable(
    positive,
    '1000',
    'Most operations that a gateway answers at once, subscriptions apart; others are refused with OVERLOADED.',
    '1000',
  ),
  ASTRAML_MAX_RESULT_BYTES: variable(
    whole(64 * 1024),
    '16777216',
    'Most bytes that one operation may hold of rows, and as many of its answer, 64 KiB at least; beyond it OPERATION_TOO_LARGE.',
    '16777216',
  ),
  ASTRAML_MAX_IN_FLIGHT_BYTES: variable(
    positive,
    '268435456',
    'Most bytes of rows and answers that all operations of a gateway hold at once, half of it those of one token; an operation that needs more waits, then is refused with OVERLOADED. One operation always runs.',
    '268435456',
  ),
  ASTRAML_RATE_LIMIT_POINTS: variable(
    whole(0),
    '1000000',
    'What the operations of one token, or of all who have none, may cost per window at each gateway, in objects returned at most; beyond it RATE_LIMITED. 0 for no limit, as in `astraml dev` and `demo`.',
    '1000000',
  ),
  ASTRAML_RATE_LIMIT_WINDOW_SECONDS: variable(
    whole(1, 86_400),
    '300',
    'Seconds of the window of ASTRAML_RATE_LIMIT_POINTS.',
    '300',
  ),
  ASTRAML_SHARED_EXECUTION: variable(
    flag,
    'true',
    'Whether subscriptions that ask the same share one execution and one text of each event; false executes each for itself.',
    'false',
  ),
  ASTRAML_MAX_SUBSCRIPTIONS_PER_SOCKET: variable(
    positive,
    '200',
    'Most operations, subscriptions above all, that one websocket may have open; a further one is refused with RATE_LIMITED. It may begin as many at once, then 50 a second.',
    '200',
  ),
  ASTRAML_MAX_SUBSCRIPTIONS_PER_TOKEN: variable(
    positive,
    '10000',
    'Most subscriptions, over websockets and event streams, that one token may have open at a gateway; a further one is refused with RATE_LIMITED.',
    '10000',
  ),
  ASTRAML_MAX_SOCKETS_PER_TOKEN: variable(
    positive,
    '1000',
    'Most websockets that one token may have open at a gateway; a further one is closed with 1013, and clients try again.',
    '1000',
  ),
  ASTRAML_MAX_SOCKETS: variable(
    positive,
    '20000',
    'Most websockets and event streams that a gateway holds; a further one is refused with 503 and OVERLOADED.',
    '20000',
  ),
  ASTRAML_MAX_METRIC_NAMES: variable(
    whole(1, 1_000_000),
    '20000',
    'Most names of metrics that a job may have: points of further names are not stored, and its log says so once. `metrics.max_names` of a job spec or a policy may lower it.',
    '20000',
  ),
  ASTRAML_MAX_CONNECTIONS: variable(
    positive.nullable(),
    null,
    'Most TCP connections that a gateway holds, more than ASTRAML_MAX_SOCKETS; a further one is closed at once. By default 4,000 more than ASTRAML_MAX_SOCKETS.',
    '24000',
  ),
  ASTRAML_LOG_RETENTION_DAYS: variable(
    positive,
    '30',
    'Days that a log is kept after the end of its job, and what became of the due times of schedules.',
    '30',
  ),
  ASTRAML_METRIC_RAW_DAYS: variable(
    positive,
    '30',
    'Days that points and windows shorter than 5 minutes are kept after the end of their job.',
    '30',
  ),
  ASTRAML_METRIC_WINDOW_DAYS: variable(
    positive,
    '365',
    'Days that windows shorter than an hour are kept after the end of their job; those of an hour stay.',
    '365',
  ),
  ASTRAML_RUNNER_LEASE_SECONDS: variable(
    whole(3),
    '30',
    'Seconds without a sign of life after which a runner has lost its job.',
    '30',
  ),
  ASTRAML_SHUTDOWN_SECONDS: variable(positive, '10', 'Seconds that a stopping gateway gives to its clients.', '10'),
  ASTRAML_METRICS_PORT: variable(
    port,
    '9464',
    'Port on HOST where `astraml serve` answers GET /metrics, for Prometheus; 0 switches it off.',
    '9464',
  ),
  LOG_LEVEL: variable(
    oneOf(['trace', 'debug', 'info', 'warn', 'error', 'silent']),
    'info',
    'Least important messages that the gateway logs to standard error.',
    'debug',
  ),
} as const;

/** Makes an entry of a table of variables. */
export function variable<Schema extends z.ZodType>(
  schema: Schema,
  fallback: string | null,
  meaning: string,
  example: string,
) {
  return { schema, default: fallback, meaning, example } satisfies Variable<Schema>;
}

function secret<Schema extends z.ZodType>(schema: Schema, fallback: string | null, meaning: string, example: string) {
  return { schema, default: fallback, meaning, example, secret: true } satisfies Variable<Schema>;
}
