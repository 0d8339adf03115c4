// Headers of our own HTML pages. They restrict a page to the scripts that stand in it and those
// named here, and to requests to this gateway.
import { createHash } from 'node:crypto';

/**
 * Headers for a page. `more` adds directives of the content security policy; its `script-src` adds
 * to the hashes of the page's own scripts.
 */
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
