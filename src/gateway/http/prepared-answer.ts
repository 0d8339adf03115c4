// Answers that are the same for everybody, kept as bytes: plain, and compressed once, in the thread
// pool of zlib. They are sent plain until the compression is done.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';

export type PreparedAnswer = {
  headers: Record<string, string>;
  plain: Buffer;
  gzip?: Buffer;
  /**
   * Settles when `gzip` is there, or compressing failed. The sender of a long answer waits for it.
   */
  gzipped?: Promise<void>;
  br?: Buffer;
};

const [compressGzip, compressBrotli] = [promisify(gzip), promisify(brotliCompress)];
/**
 * Quality 5 takes less than a second for a page of 9 MB; the best takes 20 s and saves a tenth of
 * the bytes.
 */
const brotliQuality = 5;

/** Prepares an answer and starts to compress it; `headers` are sent with it each time. */
export function prepareAnswer(content: string | Buffer, headers: Record<string, string>): PreparedAnswer {
  const plain = Buffer.from(content);
  const ready: PreparedAnswer = { headers, plain };
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: brotliQuality,
    [constants.BROTLI_PARAM_SIZE_HINT]: plain.length,
  };
  // When compressing fails, the answer stays plain, which is correct as well.
  ready.gzipped = compressGzip(plain).then(
    (bytes) => void (ready.gzip = bytes),
    () => {},
  );
  void compressBrotli(plain, { params }).then(
    (bytes) => void (ready.br = bytes),
    () => {},
  );
  return ready;
}

/**
 * Sends the answer in the best encoding that the client accepts. `vary` names further request
 * headers that the answer depends on.
 */
export function sendPrepared(
  request: IncomingMessage,
  response: ServerResponse,
  ready: PreparedAnswer,
  vary = '',
): void {
  const encoding = (['br', 'gzip'] as const).find((name) => ready[name] && accepts(request, name));
  const body = encoding ? (ready[encoding] ?? ready.plain) : ready.plain;
  const earlierVary = response.getHeader('vary');
  response.writeHead(200, {
    ...ready.headers,
    ...(encoding ? { 'content-encoding': encoding } : {}),
    vary: [earlierVary, vary, 'accept-encoding'].filter(Boolean).join(', '),
    'content-length': body.length,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** Whether Accept-Encoding names an encoding with a weight above 0. */
function accepts({ headers }: IncomingMessage, encoding: string): boolean {
  return String(headers['accept-encoding'] ?? '')
    .toLowerCase()
    .split(',')
    .some((item) => {
      const [name = '', ...params] = item.split(';').map((part) => part.trim());
      return name === encoding && !params.some((param) => /^q=0(\.0*)?$/.test(param));
    });
}
