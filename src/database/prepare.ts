// Prepares the queries that Drizzle sends. Unprepared, each is parsed and planned anew in two round
// trips, and its connection carries no other query meanwhile. Prepared once for a connection, it
// takes one round trip, and queries travel together.
import type postgres from 'postgres';

/**
 * Upper bound of texts that are prepared. Each connection keeps what it prepared, and lists of
 * varying length make ever new texts: further ones are sent unprepared.
 */
const mostTexts = 500;
const longestText = 4_000;
const texts = new Set<string>();

/** Wraps a client or transaction so that its `unsafe` prepares queries. */
export function preparing<Client extends postgres.Sql | postgres.TransactionSql>(client: Client): Client {
  const unsafe: postgres.Sql['unsafe'] = (text, parameters, options) =>
    client.unsafe(text, parameters, { ...options, prepare: isWorthIt(text) });
  return new Proxy(client, {
    get: (target, key) => (key === 'unsafe' ? unsafe : (Reflect.get(target, key) as unknown)),
  });
}

function isWorthIt(text: string): boolean {
  if (texts.has(text)) return true;
  if (text.length > longestText || texts.size >= mostTexts) return false;
  texts.add(text);
  return true;
}
