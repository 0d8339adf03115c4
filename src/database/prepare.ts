// Drizzle sends each query as if it were the only one of its kind: parsed and planned anew, in two round trips, nothing
// beside it on its connection. Prepared once a connection it takes one, and queries that are sent together travel so.
import type postgres from 'postgres';

/** Lists of any length make ever new texts, and a connection keeps what it prepared: beyond this, texts are sent whole. */
const mostTexts = 500;
const longestText = 4_000;
const texts = new Set<string>();

/** The same client or transaction, whose `unsafe` prepares queries with parameters. */
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
