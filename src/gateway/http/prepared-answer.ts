// Answers that are the same for everybody, kept as bytes: plain, and compressed once, off the event loop, for all who
// take them so. Until that is done they are sent as they are.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';

export type PreparedAnswer = {
  headers: Record<string, string>;
  plain: Buffer;
  gzip?: Buffer;
  /** Settles when `gzip` is there: whoever has a long answer waits for it. */
  gzipped?: Promise<void>;
  br?: Buffer;
};

const [compressGzip, compressBrotli] = [promisify(gzip), promisify(brotliCompress)];
/** Brotli's best takes 20 s for a page of 9 MB, this one less than a second, for a tenth more bytes. */
const brotliQuality = 5;

/** Keeps an answer; `headers` are those of every answer with it. */
export function prepareAnswer(content: string | Buffer, headers: Record<string, string>): PreparedAnswer {
  const plain = Buffer.from(content);
  const ready: PreparedAnswer = { headers, plain };
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: brotliQuality,
    [constants.BROTLI_PARAM_SIZE_HINT]: plain.length,
  };
  // A failure leaves it plain, which is right as well.
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

/** Sends what is kept, in the best encoding that the client takes; `vary` names what else the answer depends on. */
export function sendPrepared(
  request: IncomingMessage,
  response: ServerResponse,
  ready: PreparedAnswer,
  vary = '',
): void {
  const encoding = (['br', 'gzip'] as const).find((name) => ready[name] && accepts(request, name));
  const body = encoding ? (ready[encoding] ?? ready.plain) : ready.plain;
  const known = response.getHeader('vary');
  response.writeHead(200, {
    ...ready.headers,
    ...(encoding ? { 'content-encoding': encoding } : {}),
    vary: [known, vary, 'accept-encoding'].filter(Boolean).join(', '),
    'content-length': body.length,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** Whether an encoding is named by Accept-Encoding with a weight above 0. */
function accepts({ headers }: IncomingMessage, encoding: string): boolean {
  return String(headers['accept-encoding'] ?? '')
    .toLowerCase()
    .split(',')
    .some((item) => {
      const [name = '', ...params] = item.split(';').map((part) => part.trim());
      return name === encoding && !params.some((param) => /^q=0(\.0*)?$/.test(param));
    });
}
