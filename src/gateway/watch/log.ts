// The log of a gateway: JSON lines on standard error. A logged error says what went wrong and
// where, and nothing that was sent or stored: no SQL, no parameters, no values that a database or a
// parser quotes.
import { type Logger, pino } from 'pino';

export function createLog(level: string): Logger {
  const options = { level, name: 'astraml', serializers: { err: loggable } };
  return pino(options, pino.destination({ fd: 2, sync: false }));
}

export type Loggable = { type: string; message: string; stack: string; cause?: Loggable } & Record<string, unknown>;

/** Members of a Postgres error that name a part of the schema or of Postgres, never a value. */
const safeMembers = ['code', 'severity', 'schema_name', 'table_name', 'column_name', 'constraint_name', 'routine'];
const maxCauses = 5;

/** Returns the parts of an error and its causes that may be logged. It follows at most 5 causes. */
export function loggable(error: unknown, depth = 0): Loggable {
  if (!(error instanceof Error))
    return { type: typeof error, message: 'something that is no error was thrown', stack: '' };
  // The message of a Drizzle error holds the whole statement with its parameters; its cause says
  // why it failed.
  if (isQueryError(error)) return loggable(error.cause ?? new Error('a query failed'), depth);
  const message = messageOf(error);
  const members = safeMembers.flatMap((name) => {
    const value: unknown = Reflect.get(error, name);
    return typeof value === 'string' ? [[name, value]] : [];
  });
  return {
    type: error.name,
    message,
    ...Object.fromEntries(members),
    stack: stackOf(error, message),
    ...(error.cause === undefined || depth >= maxCauses ? {} : { cause: loggable(error.cause, depth + 1) }),
  };
}

function isQueryError(error: Error): boolean {
  return error.constructor.name === 'DrizzleQueryError' || ('query' in error && error.cause !== undefined);
}

function messageOf(error: Error): string {
  const code = 'code' in error ? String(error.code) : '';
  // Postgres quotes the value that it could not take, and JSON.parse the text that it could not
  // read.
  if (/^22[0-9A-Z]{3}$/.test(code)) return `a value that the database does not take (${code})`;
  if (error instanceof SyntaxError && /JSON/.test(error.message)) return 'text that is not JSON';
  return error.message;
}

/**
 * Returns the stack below `message`. The original's first lines are left out, since they repeat its
 * own message.
 */
function stackOf(error: Error, message: string): string {
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line));
  return [`${error.name}: ${message}`, ...frames].join('\n');
}
