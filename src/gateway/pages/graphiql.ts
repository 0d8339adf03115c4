// GraphiQL, served whole from its package: it loads nothing from other hosts. The token stands in
// the fragment of the address (`/graphql#token=…`), which a browser never sends, so no server and
// no log sees it; the page puts it into the header editor.
import { pageHeaders } from './page.ts';
import { prepareAnswer, type PreparedAnswer } from '../http/prepared-answer.ts';

/** Content of the tabs at the first visit: the steps of a job, to be run from left to right. */
export const graphiqlTabs = [
  {
    query: `# Welcome to AstraML. Ctrl-Enter runs the operation,
# Ctrl-Space completes it. The other tabs submit a job
# and follow it live.

query Jobs {
  viewer {
    token { name scopes }
    projects { nodes { id name } }
  }
  jobs(first: 5) {
    nodes {
      id name state
      progress { fraction }
      stateReason { message hint }
    }
  }
}
`,
  },
  {
    query: `# Submits a job. What is left out is resolved; the
# answer says to what, and where each value came from.

mutation SubmitJob($input: SubmitJobInput!) {
  submitJob(input: $input) {
    ... on SubmitJobPayload {
      job {
        id number name state
        resolved { path value source }
      }
      warnings { code message }
    }
    ... on UserError { code message hint path }
  }
}
`,
    variables: `${JSON.stringify({ input: { spec: { projectId: 'p-demo', model: 'bert-base', dataset: 's3://bucket/dataset', hyperparams: { epochs: 5 } } } }, null, 2)}\n`,
  },
  ...[
    {
      query: `# The state of a job, live. Put the id of yours (job_…)
# into the variables below.

subscription JobUpdated($jobId: ID!) {
  jobUpdated(jobId: $jobId) {
    job {
      name state
      progress { fraction epoch step eta }
      stateReason { message hint }
    }
    done
  }
}
`,
    },
    {
      query: `# The log of a job, live. On the right each message
# replaces the one before; to keep them: astraml logs -f

subscription JobLogs($jobId: ID!) {
  jobLogs(jobId: $jobId, last: 20) {
    lines { seq time stream text }
    endCursor
    done
  }
}
`,
    },
    {
      query: `# The metrics of a job, live, aggregated per window.

subscription JobMetrics($jobId: ID!) {
  jobMetrics(jobId: $jobId, last: 1) {
    windows {
      id revision
      name start end
      count min max mean p95
      provisional
    }
    endCursor
    done
  }
}
`,
    },
  ].map((tab) => ({ ...tab, variables: '{\n  "jobId": ""\n}\n' })),
];

const star = (size: number) =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="${size}" height="${size}" viewBox="0 0 32 32"><path fill="#d60590" d="M16 1l4 11 11 4-11 4-4 11-4-11-11-4 11-4z"/></svg>`;

const options = {
  title: 'AstraML GraphiQL',
  logo: star(28),
  favicon: `data:image/svg+xml,${encodeURIComponent(star(32))}`,
  endpoint: '/graphql',
  subscriptionsProtocol: 'SSE' as const,
  // With GET, a subscription and its variables stand in the address, which proxies log.
  method: 'POST' as const,
  defaultTabs: graphiqlTabs,
  shouldPersistHeaders: false,
};

/**
 * Script of the page. It keeps tabs under names with the prefix `astraml:`, so that another
 * GraphiQL that was served at this address before leaves no queries or token here. It passes the
 * open tab to GraphiQL, which would otherwise open an empty one at each reload. It keeps the
 * address as it is, into which GraphiQL would write the operation.
 */
const pageScript = `
  addEventListener('hashchange', () => location.reload());
  function astramlOptions() {
    const own = 'astraml:';
    const names = () => Object.keys(localStorage).filter((name) => name.startsWith(own));
    const storage = {
      getItem: (name) => localStorage.getItem(own + name),
      setItem: (name, value) => localStorage.setItem(own + name, value),
      removeItem: (name) => localStorage.removeItem(own + name),
      clear: () => names().forEach((name) => localStorage.removeItem(name)),
      get length() { return names().length; },
    };
    const options = { storage, onEditQuery() {} };
    const token = new URLSearchParams(location.hash.slice(1)).get('token');
    options.defaultEditorToolsVisibility = token ? 'variables' : 'headers';
    if (token) options.headers = JSON.stringify({ Authorization: 'Bearer ' + token }, null, 2);
    let kept;
    try {
      kept = JSON.parse(storage.getItem('graphiql:tabState'));
    } catch {} // GraphiQL starts anew then
    const open = kept?.tabs?.[kept.activeTabIndex];
    if (open && !new URLSearchParams(location.search).has('query')) {
      options.initialQuery = open.query ?? '';
      options.initialVariables = open.variables ?? '';
    }
    return options;
  }
`;

/**
 * GraphiQL moves its tabs after the page has loaded: without this style, the first click on a tab
 * hit its old place.
 */
const pageStyle = '.graphiql-tab { transform: none !important; }';

let page: Promise<PreparedAnswer> | undefined;

/** Returns the page: 9 MB, compressed 2.5 MB. It is made once, at the first request. */
export function graphiqlPage(): Promise<PreparedAnswer> {
  page ??= renderPage();
  return page;
}

async function renderPage(): Promise<PreparedAnswer> {
  const { renderGraphiQL } = await import('@graphql-yoga/render-graphiql');
  const html = renderGraphiQL(options);
  const literal = JSON.stringify(options);
  if (html.split(literal).length !== 2) throw new Error('The options of GraphiQL are not where they were.');
  const ours = html
    .replace(literal, () => `Object.assign(${literal}, astramlOptions())`)
    .replace('<div id="root"></div>', (root) => `<style>${pageStyle}</style>${root}<script>${pageScript}</script>`);
  const policy = { 'worker-src': 'blob:', 'img-src': 'data:', 'font-src': 'data:' };
  const headers = { ...pageHeaders(ours, policy), 'cache-control': 'private, max-age=3600' };
  const ready = prepareAnswer(ours, headers);
  await ready.gzipped;
  return ready;
}
