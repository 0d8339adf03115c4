// GraphiQL: the page that is served, and the page in a browser: authorised for queries, mutations and subscriptions, with
// no network and nothing kept that is secret.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { get as httpGet } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { parse, validate } from 'graphql';
import { type Browser, chromium as driver, type Page } from 'playwright-core';
import { graphiqlTabs } from '../../src/gateway/pages/graphiql.ts';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { chromium, skipUnless } from '../support/absent.ts';
import { openDoor } from '../support/door.ts';
import { createProject, script, type Stack, startStackOnServer } from '../support/stack.ts';
import { until } from '../support/until.ts';

const html = 'text/html,application/xhtml+xml,*/*;q=0.8';
/** Long enough to be followed live. */
const lines = 16;
const chatty = script(`for (let i = 1; i <= ${lines}; i++) {
  console.log('line ' + i + ' of ${lines}');
  await new Promise((resolve) => setTimeout(resolve, 300));
}`);

let stack: Stack;
before(async () => {
  stack = await startStackOnServer();
  await createProject(stack.client, 'p-demo', chatty);
});
after(() => stack.stop());

async function fetchPage(headers: Record<string, string> = {}): Promise<{ text: string; policy: Map<string, string> }> {
  const answer = await fetch(`${stack.url}/graphql`, { headers: { accept: html, ...headers } });
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get('content-type') ?? '', /^text\/html/);
  const policy = (answer.headers.get('content-security-policy') ?? '').split('; ').map((line): [string, string] => {
    const [name = '', ...sources] = line.split(' ');
    return [name, sources.join(' ')];
  });
  return { text: await answer.text(), policy: new Map(policy) };
}

test('the page is served gzipped to those who take it, plain to others, and is the same', async () => {
  const get = (encoding: string) =>
    new Promise<{ encoding: string | undefined; body: Buffer }>((resolve, reject) => {
      const headers = { accept: html, 'accept-encoding': encoding };
      const request = httpGet(`${stack.url}/graphql`, { headers, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({ encoding: response.headers['content-encoding'], body: Buffer.concat(chunks) }),
        );
        response.on('error', reject);
      });
      request.on('error', reject);
    });
  const plain = await get('identity');
  const gzipped = await get('gzip'); // whoever takes br too gets that, once it is made
  assert.equal(plain.encoding, undefined);
  assert.equal(gzipped.encoding, 'gzip');
  assert.ok(gzipped.body.length < plain.body.length / 2);
  assert.ok(gunzipSync(gzipped.body).equals(plain.body));
});

test('the page loads nothing from elsewhere, and its policy allows only its own two scripts', async () => {
  const { text, policy } = await fetchPage();
  const scripts = [...text.matchAll(/<script>([^]*?)<\/script>/g)].map((match) => match[1] ?? '');
  assert.equal(scripts.length, 2);
  const hashes = scripts.map((code) => `'sha256-${createHash('sha256').update(code).digest('base64')}'`);
  assert.equal(policy.get('script-src'), hashes.join(' '));
  assert.equal(policy.get('default-src'), "'none'");
  assert.equal(policy.get('connect-src'), "'self'");
  for (const [name, sources] of policy) assert.doesNotMatch(sources, /\*|https?:|unsafe-eval/, name);

  const markup = text.replaceAll(/<script>[^]*?<\/script>/g, '');
  for (const [, target = ''] of markup.matchAll(/\s(?:src|href|action)="([^"]*)"/g)) assert.match(target, /^data:/);
  for (const [, target = ''] of markup.matchAll(/url\(["']?([^)"']{1,40})/g)) assert.match(target, /^data:|^#/);
  assert.doesNotMatch(markup, /@import|<iframe|<script/);
});

test('the operations of the tabs are valid', () => {
  for (const { query } of graphiqlTabs) assert.deepEqual(validate(schema, parse(query)), [], query);
});

test('GraphiQL can be turned off', async () => {
  const door = await openDoor({ ASTRAML_GRAPHIQL: 'false' });
  try {
    const answer = await fetch(`${door.url}/graphql`, { headers: { accept: html } });
    assert.doesNotMatch(answer.headers.get('content-type') ?? '', /html/);
    assert.ok(answer.status >= 400, `${answer.status}`);
    await answer.text();
  } finally {
    await door.close();
  }
});

type Seen = { urls: string[]; operations: { token: string | undefined }[]; errors: string[]; workers: number };

/** A browser without a past, in a folder of its own. */
async function openBrowser(): Promise<{ browser: Browser; close(): Promise<void> }> {
  const home = mkdtempSync(join(tmpdir(), 'browser-'));
  const browser = await driver.launch({
    executablePath: chromium(),
    headless: true,
    env: { ...process.env, HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home } as Record<string, string>,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  return {
    browser,
    async close() {
      await browser.close();
      rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Everything that the page asks for and complains of. */
function watch(page: Page): Seen {
  const seen: Seen = { urls: [], operations: [], errors: [], workers: 0 };
  page.context().on('request', (request) => {
    seen.urls.push(request.url());
    if (request.method() === 'POST') seen.operations.push({ token: request.headers().authorization });
  });
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) seen.errors.push(message.text());
  });
  page.on('pageerror', (error) => seen.errors.push(error.message));
  page.on('worker', () => seen.workers++);
  return seen;
}

const runButton = '.graphiql-execute-button';

async function editorReady(page: Page): Promise<void> {
  await page.locator('.graphiql-query-editor .view-lines').waitFor();
  await page.locator(runButton).waitFor();
}

/** What was typed is taken in, 100 ms after the last key. */
function settle(page: Page): Promise<void> {
  return page.waitForTimeout(250);
}

/** The tabs' titles; that of the open one has a star. */
function titles(page: Page): Promise<string[]> {
  return page.locator('.graphiql-tab').evaluateAll((tabs) =>
    tabs.map((tab) => {
      const { className, textContent } = tab as { className: string; textContent: string };
      return (className.includes('graphiql-tab-active') ? '*' : '') + textContent.replace(/wze icon$/, '');
    }),
  );
}

async function openTab(page: Page, title: string): Promise<void> {
  await page.locator('.graphiql-tab-button', { hasText: new RegExp(`^${title}$`) }).click();
  await until(async () => (await titles(page)).includes(`*${title}`), { what: `tab ${title}` });
  await settle(page);
}

async function setVariables(page: Page, variables: object): Promise<void> {
  await page.getByRole('button', { name: 'Variables' }).click();
  await page.locator('.graphiql-editor-tool .monaco-editor:visible').click();
  await page.keyboard.press('Control+A');
  await page.keyboard.press('Delete'); // a bracket typed over a selection would enclose it
  await page.keyboard.insertText(JSON.stringify(variables));
  await settle(page);
}

async function answerText(page: Page): Promise<string> {
  return (await page.locator('.graphiql-response .view-lines').innerText()).replaceAll('\u00a0', ' ');
}

/** What the result pane shows once it matches. */
async function answerLike(page: Page, pattern: RegExp): Promise<string> {
  let text = '';
  const matches = async () => pattern.test((text = await answerText(page)));
  await until(matches, { timeoutMs: 10_000, what: `${pattern}` }).catch((error: unknown) => {
    throw new Error(`${String(error)}; shown: ${text}`);
  });
  return text;
}

test('in a browser', { ...skipUnless('chromium'), timeout: 60_000 }, async (t) => {
  const { browser, close } = await openBrowser();
  t.after(close);
  const page = await browser.newPage({ viewport: { width: 1400, height: 1400 } });
  page.setDefaultTimeout(15_000);
  const seen = watch(page);
  const address = `${stack.url}/graphql#token=${stack.token}`;
  const stored = () => page.evaluate<string>('JSON.stringify({ ...localStorage })');
  const firstTabs = ['*Jobs', 'SubmitJob', 'JobUpdated', 'JobLogs', 'JobMetrics'];

  await t.test('opens with an operation for every step, whatever another GraphiQL left at this address', async () => {
    const headers = JSON.stringify({ Authorization: 'Bearer stale' });
    const tab = { id: '1', title: 'Stale', query: '{ stale }', variables: null, headers };
    const tabState = JSON.stringify({ tabs: [{ ...tab, operationName: null, response: null }], activeTabIndex: 0 });
    await page.addInitScript(
      `if (location.protocol === 'http:') Object.entries(${JSON.stringify({ headers, tabState, shouldPersistHeaders: 'true' })})
        .forEach(([name, value]) => localStorage.setItem('graphiql:' + name, value))`,
    );
    await page.goto(address);
    await editorReady(page);
    assert.deepEqual(await titles(page), firstTabs);
    assert.equal(await page.title(), 'AstraML GraphiQL');
    assert.ok(!(await page.locator('body').innerText()).includes(stack.token), 'the token is not on the screen');
  });

  await t.test('shows the documentation', async () => {
    await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
    await page.getByText('submit ML training jobs, follow their logs and metrics live').waitFor();
    await page.getByRole('button', { name: 'Hide Documentation Explorer' }).click();
  });

  await t.test('runs a query', async () => {
    await page.locator(runButton).click();
    await answerLike(page, /"name": "local administrator"/);
  });

  let jobId = '';
  await t.test('submits a job', async () => {
    await openTab(page, 'SubmitJob');
    await page.locator(runButton).click();
    const answer = await answerLike(page, /"id": "job_/);
    jobId = /job_[0-9a-z]+/.exec(answer)?.[0] ?? '';
    assert.match(answer, /"submitJob": \{/);
  });

  await t.test('streams its log while it runs, and says when it is done', async () => {
    await openTab(page, 'JobLogs');
    await setVariables(page, { jobId });
    await page.keyboard.press('Control+Enter');
    const first = await answerLike(page, /"text": "line \d+ of/);
    assert.match(first, /"done": false/);
    const newest = Number(/line (\d+) of(?![^]*line \d)/.exec(first)?.[1]);
    assert.ok(newest < lines, `live: ${newest}`);
    await answerLike(page, new RegExp(`line ${newest + 3} of`));
    await page.getByRole('button', { name: 'Stop query' }).click();
  });

  await t.test('streams its state until it has ended', async () => {
    await openTab(page, 'JobUpdated');
    await setVariables(page, { jobId });
    await page.locator(runButton).click();
    await answerLike(page, /"state": "RUNNING"[^]*"done": false/);
    await answerLike(page, /"state": "SUCCEEDED"[^]*"done": true/);
    await page.getByRole('button', { name: 'Execute query' }).waitFor();
  });

  await t.test('reads the metrics of a job that has none', async () => {
    await openTab(page, 'JobMetrics');
    await setVariables(page, { jobId });
    await page.locator(runButton).click();
    await answerLike(page, /"windows": \[\][^]*"done": true/);
  });

  await t.test('shows why a job is refused', async () => {
    await openTab(page, 'SubmitJob');
    await setVariables(page, { input: { spec: { projectId: 'p-nowhere', model: 'm', dataset: 'd' } } });
    await page.locator(runButton).click();
    await answerLike(page, /"submitJob": \{\s*"code": "NOT_FOUND"/);
  });

  await t.test('completes field names', async () => {
    await page.getByRole('button', { name: 'New tab' }).click();
    await page.locator('.graphiql-query-editor .monaco-editor').click();
    await page.keyboard.type('query Mine { viewer { tok');
    await page.keyboard.press('Control+Space');
    await page.locator('.suggest-widget.visible').getByText('token', { exact: true }).waitFor();
    await page.keyboard.press('Enter');
    await page.keyboard.type(' { name');
    await settle(page);
    await page.keyboard.press('Control+Enter');
    await answerLike(page, /"viewer": \{\s*"token": \{\s*"name": "local administrator"/);
  });

  await t.test('is as it was after a reload, and keeps no token', async () => {
    const tabs = [...firstTabs.map((title) => title.replace('*', '')), '*Mine'];
    const keptTabs = () => page.evaluate<string>(`localStorage.getItem('astraml:graphiql:tabState')`);
    await until(async () => /Mine \{ viewer \{ token \{ name/.test(await keptTabs()), { what: 'the stored tab' });
    for (const _ of [1, 2]) {
      await page.reload();
      await editorReady(page);
      assert.deepEqual(await titles(page), tabs);
    }
    assert.equal(page.url(), address);
    await page.locator(runButton).click();
    await answerLike(page, /local administrator/);
    const kept = await stored();
    assert.ok(!kept.includes(stack.token.slice(8)), kept);
  });

  await t.test('did all of it with the token, without a complaint and without another host', () => {
    assert.deepEqual(seen.errors, []);
    assert.ok(seen.workers >= 3, `${seen.workers} workers`);
    assert.ok(seen.operations.length >= 8);
    for (const { token } of seen.operations) assert.equal(token, `Bearer ${stack.token}`);
  });

  await t.test('takes another token from the address at once, and says that it is wrong', async () => {
    await page.goto(`${stack.url}/graphql#token=astraml_${'x'.repeat(43)}`);
    await answerLike(page, /"code": "UNAUTHENTICATED"/);
  });

  await t.test('says without a token that one is needed', async () => {
    await page.goto('about:blank');
    await page.goto(`${stack.url}/graphql`);
    await editorReady(page);
    await page.locator('.graphiql-editor-tools .active', { hasText: 'Headers' }).waitFor();
    await openTab(page, 'Jobs');
    await page.locator(runButton).click();
    await answerLike(page, /"code": "UNAUTHENTICATED"/);
  });

  await t.test('asked only its own server, and never by an address with a token', () => {
    const elsewhere = seen.urls.filter((url) => !url.startsWith(stack.url) && !/^(blob|data):/.test(url));
    assert.deepEqual(elsewhere, []);
    assert.ok(seen.urls.every((url) => !url.includes('token') && !url.includes(stack.token)));
    assert.ok(seen.urls.every((url) => !url.startsWith(stack.url) || !url.includes('?')));
  });
});
