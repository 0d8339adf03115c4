// The guard: what is refused before anything is read or run, on HTTP and on the websocket's upgrade alike. Another site
// must not use a visitor's browser against us, a name that is not ours must not reach us, and nothing may flood us.
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Config } from '../../config.ts';

/** `code` where the status alone does not say it. */
export type Refused = { status: number; message: string; code?: string };

/** Whether the Host header names us; else 421, which ends DNS rebinding. */
export function checkHost(headers: IncomingHttpHeaders, config: Pick<Config, 'hosts' | 'publicUrl'>): Refused | null {
  const name = hostName(headers.host ?? '');
  const publicName = config.publicUrl ? new URL(config.publicUrl).hostname : null;
  const known = config.hosts ?? ['localhost', '127.0.0.1', '[::1]', ...(publicName ? [publicName] : [])];
  if (known.some((host) => host.toLowerCase() === name)) return null;
  return { status: 421, message: 'This server does not answer to that host name. Set ASTRAML_HOSTS to allow it.' };
}

function hostName(host: string): string {
  return host.replace(/:\d+$/, '').toLowerCase();
}

/**
 * Whether a browser may have been sent by another site. An Origin must be ours or allowed; who sends none is no browser,
 * or says with Sec-Fetch-Site that the request comes from us or from the person.
 */
export function checkOrigin(headers: IncomingHttpHeaders, config: Config): Refused | null {
  const { origin } = headers;
  if (origin === undefined) {
    const site = headers['sec-fetch-site'];
    if (site === undefined || site === 'same-origin' || site === 'none') return null;
    return { status: 403, message: 'Requests from other sites are refused.' };
  }
  if (isOwnOrigin(origin, headers.host ?? '') || config.corsOrigins.includes(origin)) return null;
  return { status: 403, message: 'This origin may not use the gateway. Set ASTRAML_CORS_ORIGINS to allow it.' };
}

/** The Host header was checked before, so it is a name of ours. */
function isOwnOrigin(origin: string, host: string): boolean {
  return origin === `http://${host}` || origin === `https://${host}`;
}

/** CORS headers for an origin that is allowed by name; none for any other. */
export function corsHeaders(headers: IncomingHttpHeaders, config: Config): Record<string, string> {
  const { origin } = headers;
  if (origin === undefined || !config.corsOrigins.includes(origin)) return {};
  return {
    'access-control-allow-origin': origin,
    'access-control-allow-methods': 'GET, POST, OPTIONS',
    'access-control-allow-headers': 'authorization, content-type, idempotency-key',
    'access-control-max-age': '600',
    vary: 'Origin',
  };
}

/** Whether a POST's body is plain JSON: forms and text are what other sites can send without asking. */
export function checkContent(headers: IncomingHttpHeaders): Refused | null {
  const type = (headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json') return { status: 415, message: 'Send the body as application/json.' };
  const encoding = headers['content-encoding']?.toLowerCase() ?? 'identity';
  if (encoding !== 'identity') return { status: 415, message: 'Send the body without compression.' };
  return null;
}

/** The body as text, of at most so many bytes, counted as they come: a length that was promised means nothing. */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  maxBytes: number,
): Promise<string | Refused> {
  const tooLarge = { status: 413, message: `The body is larger than ${maxBytes} bytes.` };
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) return tooLarge;
  if (request.headers.expect !== undefined) response.writeContinue(); // its sender waits to be told
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) return tooLarge;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** The body of a request as JSON, whatever it promised to be; or why it is not read. */
export async function readJson(
  request: IncomingMessage,
  response: ServerResponse,
  maxBytes: number,
): Promise<{ json: unknown } | Refused> {
  const wrong = checkContent(request.headers);
  if (wrong) return wrong;
  const text = await readBody(request, response, maxBytes);
  if (typeof text !== 'string') return text;
  const json = parseJson(text);
  return json === undefined ? { status: 400, message: 'The body is not JSON.' } : { json };
}

export function isRefused(value: object | undefined): value is Refused {
  return value !== undefined && 'status' in value;
}

/** JSON without `__proto__` keys; undefined for text that is not JSON, or nested beyond all use. */
export function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return dropProto(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

const maxNesting = 1_000;

/**
 * Removes `__proto__` keys, which JSON.parse makes properties of; false for what is nested too deep. A reviver would do
 * it too, but takes half a second for a megabyte of small values.
 */
export function dropProto(value: unknown, level = 0): boolean {
  if (typeof value !== 'object' || value === null) return true;
  if (level > maxNesting) return false;
  if (Array.isArray(value)) return value.every((item) => dropProto(item, level + 1));
  if (Object.hasOwn(value, '__proto__')) delete (value as Record<string, unknown>)['__proto__'];
  return Object.values(value).every((item) => dropProto(item, level + 1));
}
