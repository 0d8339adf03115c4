// /errors: a page for each error code. `docsUrl` of an error, and the `type` of a problem document,
// link to it. Its content is the table of `errors.ts`, as that of docs/errors.md.
import type { ServerResponse } from 'node:http';
import { type RefusalCode, refusals } from '../../errors.ts';

const codes = Object.keys(refusals).filter(isCode);

/** Answers a GET of /errors and of /errors/<CODE>; false for any other path. */
export function answerErrors(path: string, response: ServerResponse): boolean {
  const match = /^\/errors(?:\/(\w+))?$/.exec(path);
  const name = match?.[1];
  if (!match || (name !== undefined && !isCode(name))) return false;
  const content = name === undefined ? codes.map(section).join('\n') : section(name);
  response.writeHead(200, {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    'cache-control': 'public, max-age=3600',
  });
  response.end(page(name ?? 'Error codes', content));
  return true;
}

function isCode(name: string): name is RefusalCode {
  return Object.hasOwn(refusals, name);
}

function section(code: RefusalCode): string {
  const { httpStatus, retryable, meaning, action } = refusals[code];
  const retry = retryable ? 'the same request may succeed later' : 'the same request will fail again';
  return `<h2><a href="/errors/${code}">${code}</a></h2>
<p>${html(meaning)}</p>
<p><b>What to do:</b> ${html(action)}</p>
<p>HTTP ${httpStatus}; ${retry}.</p>`;
}

function html(text: string): string {
  const escaped = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return escaped.replace(/`([^`]+)`/g, '<code>$1</code>');
}

function page(title: string, content: string): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>${title} · AstraML</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem }</style>
${content}
<p><a href="/errors">All error codes</a></p>
</html>
`;
}
