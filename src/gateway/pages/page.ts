// The headers of our own pages, which keep each to itself: it runs the scripts that stand in it and those named here,
// and talks to nobody but us.
import { createHash } from 'node:crypto';

/** `more` names what the page needs beyond that, by directive; `script-src` adds to the hashes of its own scripts. */
export function pageHeaders(html: string, more: Readonly<Record<string, string>>): Record<string, string> {
  const hashes = [...html.matchAll(/<script[^>]*>([^]*?)<\/script>/g)].map(([, script = '']) => {
    return `'sha256-${createHash('sha256').update(script).digest('base64')}'`;
  });
  const { 'script-src': scripts = '', ...others } = more;
  const policy = {
    'default-src': "'none'",
    'script-src': `${hashes.join(' ')} ${scripts}`.trim(),
    'style-src': "'unsafe-inline'",
    'connect-src': "'self'",
    'base-uri': "'none'",
    'form-action': "'none'",
    'frame-ancestors': "'none'",
    ...others,
  };
  return {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': Object.entries(policy)
      .map(([directive, sources]) => `${directive} ${sources}`)
      .join('; '),
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  };
}
