// /watch: one page that follows a job, the smallest example of a frontend. The page and its stock
// graphql-ws client are served as they lie in their packages: there is no build step, and nothing
// comes from another host.
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import { pageHeaders } from './page.ts';
import { prepareAnswer, type PreparedAnswer, sendPrepared } from '../http/prepared-answer.ts';

const page = new URL('../../console/watch.html', import.meta.url);
const clientFolder = new URL('./', import.meta.resolve('graphql-ws/client'));
/** Answers by path; each file is read once. Paths without a file are not kept. */
const kept = new Map<string, PreparedAnswer>();

/** Answers a GET of /watch and of the scripts below it; false for any other path. */
export async function answerWatch(path: string, request: IncomingMessage, response: ServerResponse): Promise<boolean> {
  const ready = kept.get(path) ?? (await readReady(path));
  if (!ready) return false;
  kept.set(path, ready);
  sendPrepared(request, response, ready);
  return true;
}

async function readReady(path: string): Promise<PreparedAnswer | null> {
  if (path === '/watch') {
    const html = await readFile(page, 'utf8');
    return prepareAnswer(html, { ...pageHeaders(html, { 'script-src': "'self'" }), 'cache-control': 'no-cache' });
  }
  const script = /^\/watch\/graphql-ws\/([\w-]+\.js)$/.exec(path)?.[1];
  const code = script && (await readFile(fileURLToPath(new URL(script, clientFolder))).catch(() => null));
  if (!code) return null;
  return prepareAnswer(code, {
    'content-type': 'text/javascript; charset=utf-8',
    'x-content-type-options': 'nosniff',
    'cache-control': 'public, max-age=3600',
  });
}
