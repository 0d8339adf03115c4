// The guard refuses requests before anything is read or run, on HTTP and on the upgrade to a
// websocket: requests that another site makes a visitor's browser send, requests under a foreign
// host name, and bodies that are too large.
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Config } from '../../config.ts';

/** A refused request. `code` is set where the HTTP status does not determine it. */
export type Refused = { status: number; message: string; code?: string };

/**
 * Checks that the Host header names this gateway. Another name gets 421: under DNS rebinding, a
 * foreign site reaches us with its own name.
 */
export function checkHost(headers: IncomingHttpHeaders, config: Pick<Config, 'hosts' | 'publicUrl'>): Refused | null {
  const name = hostName(headers.host ?? '');
  const publicName = config.publicUrl ? new URL(config.publicUrl).hostname : null;
  const allowedHosts = config.hosts ?? ['localhost', '127.0.0.1', '[::1]', ...(publicName ? [publicName] : [])];
  if (allowedHosts.some((host) => host.toLowerCase() === name)) return null;
  return { status: 421, message: 'This server does not answer to that host name. Set ASTRAML_HOSTS to allow it.' };
}

function hostName(host: string): string {
  return host.replace(/:\d+$/, '').toLowerCase();
}

/**
 * Checks that no foreign site made a browser send the request. An Origin must be that of this
 * gateway, or allowed. A request without an Origin comes from no browser; or its Sec-Fetch-Site
 * tells that a page of this gateway, or the user, caused it.
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

/**
 * Whether an Origin is that of this gateway: `checkHost` has passed, so its Host header can be
 * trusted.
 */
function isOwnOrigin(origin: string, host: string): boolean {
  return origin === `http://${host}` || origin === `https://${host}`;
}

/** CORS headers for an origin that the configuration allows; none for any other. */
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

/**
 * Checks that a body is uncompressed JSON. Forms and plain text are refused: browsers let other
 * sites send those without asking.
 */
export function checkContent(headers: IncomingHttpHeaders): Refused | null {
  const type = (headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json') return { status: 415, message: 'Send the body as application/json.' };
  const encoding = headers['content-encoding']?.toLowerCase() ?? 'identity';
  if (encoding !== 'identity') return { status: 415, message: 'Send the body without compression.' };
  return null;
}

/**
 * Reads the body as text, at most `maxBytes`. The bytes are counted as they come, since
 * `content-length` may be wrong.
 */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  maxBytes: number,
): Promise<string | Refused> {
  const tooLarge = { status: 413, message: `The body is larger than ${maxBytes} bytes.` };
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) return tooLarge;
  // the sender waits for "100 Continue"
  if (request.headers.expect !== undefined) response.writeContinue();
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) return tooLarge;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Reads the body as JSON; returns a refusal when it is too large or no JSON. */
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

/**
 * Parses JSON without `__proto__` keys; undefined for text that is no JSON, or nested deeper than
 * 1,000 levels.
 */
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
 * Removes `__proto__` keys in place: JSON.parse makes them properties, and copying such an object
 * could replace its prototype. Returns false for a value that is nested too deep. A reviver would
 * do the same, but takes half a second for a megabyte of small values.
 */
export function dropProto(value: unknown, level = 0): boolean {
  if (typeof value !== 'object' || value === null) return true;
  if (level > maxNesting) return false;
  if (Array.isArray(value)) return value.every((item) => dropProto(item, level + 1));
  if (Object.hasOwn(value, '__proto__')) delete (value as Record<string, unknown>)['__proto__'];
  return Object.values(value).every((item) => dropProto(item, level + 1));
}
