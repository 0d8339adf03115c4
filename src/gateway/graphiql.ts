// GraphiQL, served whole from the package: it asks no other host for anything. The token stands in the page's fragment
// (`/graphql#token=…`), which never reaches a server or a log; the page puts it into the header editor.
import { gzipSync } from 'node:zlib';

const welcome = `# Welcome to AstraML. Ctrl-Enter runs the operation under the cursor.

query Jobs {
  viewer { token { name scopes } projects { nodes { id name } } }
  jobs(first: 5) {
    nodes { id number name state progress { fraction } stateReason { message } }
  }
}
`;

/** Headers that keep the page to itself: scripts and styles are inline, workers come from blobs, data from us only. */
export const graphiqlHeaders = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'unsafe-inline' 'unsafe-eval' blob:",
    'worker-src blob:',
    "style-src 'unsafe-inline'",
    'img-src data: blob:',
    'font-src data:',
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'cache-control': 'private, max-age=3600',
};

let page: Promise<{ plain: Buffer; gzipped: Buffer }> | undefined;

/** The page, 9 MB and 2.5 MB: made once, when it is first asked for. */
export function graphiqlPage(): Promise<{ plain: Buffer; gzipped: Buffer }> {
  page ??= renderPage();
  return page;
}

async function renderPage() {
  const { renderGraphiQL } = await import('@graphql-yoga/render-graphiql');
  const options = {
    title: 'AstraML GraphiQL',
    favicon: 'data:,',
    endpoint: '/graphql',
    subscriptionsProtocol: 'SSE' as const,
    defaultQuery: welcome,
    shouldPersistHeaders: false,
  };
  const html = renderGraphiQL(options);
  const literal = JSON.stringify(options);
  if (html.split(literal).length !== 2) throw new Error('The options of GraphiQL are not where they were.');
  const withToken = `Object.assign(${literal}, astramlHeaders())`;
  const script = `<script>
    function astramlHeaders() {
      const token = new URLSearchParams(location.hash.slice(1)).get('token');
      return token ? { headers: JSON.stringify({ Authorization: 'Bearer ' + token }, null, 2) } : {};
    }
  </script>`;
  const plain = Buffer.from(
    html.replace(literal, () => withToken).replace('<div id="root"></div>', `<div id="root"></div>${script}`),
  );
  return { plain, gzipped: gzipSync(plain, { level: 6 }) };
}
