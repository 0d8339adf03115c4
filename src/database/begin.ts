// begin() of postgres.js, kept from writing to a connection that is gone: its ROLLBACK there is written to a socket that
// is null, in a callback that nobody can catch, and ends the process (porsager/postgres#1208, in 3.4.9).
import type postgres from 'postgres';

type Work<T> = (sql: postgres.TransactionSql) => Promise<T>;

/** Runs `work` in a transaction. Rejects when the connection is lost; nothing is sent on it then. */
export async function begin<T>(client: postgres.Sql, work: Work<T>): Promise<unknown> {
  let lost = false;
  try {
    return await client.begin(
      (sql) =>
        // Never settling keeps begin() from its ROLLBACK and COMMIT: it rejects by itself once the socket is closed.
        new Promise<T>((resolve, reject) => {
          work(refuseWhen(() => lost, sql)).then(
            (result) => lost || resolve(result),
            (error: unknown) => lost || isConnectionLost(error) || reject(error as Error),
          );
        }),
    );
  } catch (error) {
    lost = true;
    throw error;
  }
}

function refuseWhen(isLost: () => boolean, sql: postgres.TransactionSql): postgres.TransactionSql {
  return new Proxy(sql, {
    get(target, key) {
      if (isLost()) throw Object.assign(new Error('The connection was lost.'), { code: 'CONNECTION_CLOSED' });
      return Reflect.get(target, key) as unknown;
    },
  });
}

/** Whether a query failed with its connection: the socket broke, or the server ended it. */
function isConnectionLost(error: unknown): boolean {
  const cause = error instanceof Error && error.name === 'DrizzleQueryError' ? error.cause : error;
  if (!(cause instanceof Error) || !('query' in cause)) return false;
  if ('severity' in cause && (cause.severity === 'FATAL' || cause.severity === 'PANIC')) return true;
  return (
    'code' in cause && /^(CONNECTION_CLOSED|ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH)/.test(String(cause.code))
  );
}
