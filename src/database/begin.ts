// A begin() for postgres.js 3.4.9 that writes nothing to a lost connection. The driver's own
// begin() sends ROLLBACK there. When the socket is gone, that throws in a callback that no code can
// catch, and ends the process (porsager/postgres#1208). Between a socket's 'error' and its 'close',
// it is queued for ever, and every answer of the next connection goes to the wrong query.
import type postgres from 'postgres';

type Rows = (postgres.Row & Iterable<postgres.Row>)[];
type Work<T> = (sql: postgres.TransactionSql) => Promise<T>;

/**
 * Runs `work` in a transaction. Rejects when the connection is lost, and sends nothing on it
 * afterwards.
 */
export async function begin<T>(client: postgres.Sql, work: Work<T>): Promise<unknown> {
  let lost = false;
  const watched = (sql: postgres.TransactionSql) =>
    watch(sql, {
      isLost: () => lost,
      failed: (error) => (lost ||= isConnectionLost(error)),
    });
  try {
    return await client.begin(
      (sql) =>
        // After a loss this promise never settles, since begin() would send ROLLBACK or COMMIT
        // then. begin() rejects by itself once the socket is closed.
        new Promise<T>((resolve, reject) => {
          work(watched(sql)).then(
            (result) => lost || resolve(result),
            (error: unknown) => lost || reject(error as Error),
          );
        }),
    );
  } catch (error) {
    lost = true;
    throw error;
  }
}

type Watcher = { isLost(): boolean; failed(error: unknown): void };

/**
 * Wraps a transaction so that queries after a lost connection throw, and `failed` is called with
 * each error before the caller of the query sees it.
 */
function watch(sql: postgres.TransactionSql, watcher: Watcher): postgres.TransactionSql {
  const unsafe: typeof sql.unsafe = <T extends Rows>(...query: Parameters<typeof sql.unsafe>) => {
    const answer = sql.unsafe<T>(...query);
    answer.catch(watcher.failed);
    return answer;
  };
  return new Proxy(sql, {
    get(target, key) {
      if (watcher.isLost()) throw Object.assign(new Error('The connection was lost.'), { code: 'CONNECTION_CLOSED' });
      return key === 'unsafe' ? unsafe : (Reflect.get(target, key) as unknown);
    },
  });
}

/**
 * Whether a query failed because its connection was lost: the socket broke, or the server ended it.
 */
function isConnectionLost(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if ('severity' in error && (error.severity === 'FATAL' || error.severity === 'PANIC')) return true;
  return (
    'code' in error && /^(CONNECTION_CLOSED|ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH)/.test(String(error.code))
  );
}
