// /watch: one page that follows a job, the smallest example of a frontend. It and the stock graphql-ws client that it
// imports are served as they lie in their packages; there is no build step, and nothing comes from another host.
import { readFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import { pageHeaders } from './page.ts';

const page = new URL('../console/watch.html', import.meta.url);
const clientFolder = new URL('./', import.meta.resolve('graphql-ws/client'));

/** Answers a GET of /watch and of the scripts below it; false for any other path. */
export async function answerWatch(path: string, response: ServerResponse): Promise<boolean> {
  if (path === '/watch') {
    const html = await readFile(page, 'utf8');
    response
      .writeHead(200, { ...pageHeaders(html, { 'script-src': "'self'" }), 'cache-control': 'no-cache' })
      .end(html);
    return true;
  }
  const script = /^\/watch\/graphql-ws\/([\w-]+\.js)$/.exec(path)?.[1];
  if (!script) return false;
  const code = await readFile(fileURLToPath(new URL(script, clientFolder))).catch(() => null);
  if (!code) return false;
  response.writeHead(200, {
    'content-type': 'text/javascript; charset=utf-8',
    'x-content-type-options': 'nosniff',
    'cache-control': 'public, max-age=3600',
  });
  response.end(code);
  return true;
}
