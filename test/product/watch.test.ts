// /watch in a real browser: lines live, a chart for each metric that grows, and no request to anywhere else.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { chromium as driver, type Page } from 'playwright-core';
import { chromium, skipUnless } from '../support/absent.ts';
import { startCluster } from '../support/cluster.ts';
import { createProject, script, type Stack, startStack, submit } from '../support/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
  await createProject(stack.client, 'p-watch');
});
after(() => stack.stop());

const training = script(`
  for (let step = 1; step <= 60; step++) {
    console.log('line ' + step);
    console.log('::astraml ' + JSON.stringify({ step, 'train/loss': 1 / step, 'eval/accuracy': step / 60 }));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  console.log('<img src=x onerror="document.title = 1"> \\u001b]0;title\\u0007 the end');
`);

test('the page and its script are served as they lie, and nothing beside them', async () => {
  const get = (path: string) => fetch(`${stack.url}${path}`);
  const page = await get('/watch');
  assert.equal(page.status, 200);
  assert.match(page.headers.get('content-security-policy') ?? '', /default-src 'none'/);
  assert.match(page.headers.get('content-security-policy') ?? '', /script-src 'sha256-[^ ]+' 'self';/);
  assert.doesNotMatch(await page.text(), /https?:\/\//);
  const client = await get('/watch/graphql-ws/client.js');
  assert.equal(client.headers.get('content-type'), 'text/javascript; charset=utf-8');
  for (const path of [
    '/watch/',
    '/watch/graphql-ws/',
    '/watch/graphql-ws/..%2fpackage.json',
    '/watch/graphql-ws/none.js',
  ]) {
    assert.equal((await get(path)).status, 404, path);
  }
});

test('the page shows hidden directions and controls of a text as what they are', async () => {
  const page = await (await fetch(`${stack.url}/watch`)).text();
  const source = /function shown\(text\) \{[^]*?\n {6}\}/.exec(page)?.[0] ?? '';

  const shown = new Function(`${source} return shown;`)() as (text: string) => string;
  assert.equal(shown('invoice\u202egpj.exe \u2067x \u061cy\u200f'), 'invoice\\u202egpj.exe \\u2067x \\u061cy\\u200f');
  assert.equal(shown('a\u001b[31mb\u001b]0;title\u0007c\u0000d <b> é 漢'), 'abc\ufffdd <b> é 漢');
  const unshown = [...page.matchAll(/textContent = ([^;]+);/g)].map(([, value = '']) => value);
  const ofOthers = unshown.filter((value) => /\b(name|message|text|title)\b/.test(value) && !value.includes('shown('));
  assert.deepEqual(ofOthers, []);
});

suite('in a browser', skipUnless('chromium'), () => {
  test('it follows a job to its end, and asks nobody but the gateway', { timeout: 60_000 }, () =>
    inBrowser(stack.url, async (page, asked) => {
      const { id } = await submit(stack.client, 'p-watch', { command: training, metrics: { windowSeconds: 1 } });
      await page.goto(`${stack.url}/watch#job=${id}&token=${stack.token}`);
      await page.locator('#log div', { hasText: /^line 5$/ }).waitFor();
      assert.equal(await page.locator('#state').textContent(), 'RUNNING', 'lines come while it runs');
      assert.equal(await page.locator('#link').textContent(), 'live');
      const early = await windowsShown(page);
      await ended(page);
      const late = await windowsShown(page);
      assert.ok(early >= 1 && late >= early + 3, `the chart grew from ${early} to ${late} windows`);
      assert.deepEqual(await numbersShown(page), counted(62));
      assert.equal(await page.locator('#log img').count(), 0, 'markup is shown, not obeyed');
      assert.match((await page.locator('#log div').last().textContent()) ?? '', /^<img .* the end$/);
      assert.deepEqual([...asked], [new URL(stack.url).host]);
      if (process.env['ASTRAML_SCREENSHOT']) await page.screenshot({ path: process.env['ASTRAML_SCREENSHOT'] });
    }),
  );

  test('it shows hidden directions as what they are, in lines, names and metrics', { timeout: 60_000 }, () =>
    inBrowser(stack.url, async (page) => {
      const command = script(`console.log('invoice\\u202egpj.exe \\u2067x \\u061cy');
        console.log('::astraml ' + JSON.stringify({ 'loss\\u202e': 1 }))`);
      const { id } = await submit(stack.client, 'p-watch', {
        command,
        name: 'n\u202eame',
        metrics: { windowSeconds: 1 },
      });
      await page.goto(`${stack.url}/watch#job=${id}&token=${stack.token}`);
      await ended(page);
      const text = (await page.locator('body').textContent()) ?? '';
      assert.ok(text.includes('invoice\\u202egpj.exe \\u2067x \\u061cy'), text);
      assert.ok(text.includes('n\\u202eame') && text.includes('loss\\u202e'), text);
      assert.doesNotMatch(text, /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/);
    }),
  );

  const servers = { ...skipUnless('own postgres'), ...skipUnless('own redis') };
  test(
    'it loses and repeats no line when its gateway is killed and restarted',
    { ...servers, timeout: 90_000 },
    async () => {
      const cluster = await startCluster({ gateways: 1 });
      const [url] = cluster.urls;
      assert.ok(url);
      try {
        await createProject(cluster.client(0), 'p-watch');
        await inBrowser(url, async (page, asked) => {
          const { id } = await submit(cluster.client(0), 'p-watch', {
            command: training,
            metrics: { windowSeconds: 1 },
          });
          await page.goto(`${url}/watch#job=${id}&token=${cluster.token}`);
          await page.locator('#log div', { hasText: /^line 10$/ }).waitFor();
          const early = await windowsShown(page);
          cluster.gateways[0]?.kill('SIGKILL');
          await page.locator('#link', { hasText: 'reconnecting' }).waitFor();
          await cluster.startGateway(0);
          await ended(page);
          assert.deepEqual(await numbersShown(page), counted(62));
          assert.ok((await windowsShown(page)) >= early + 3);
          assert.deepEqual([...asked], [new URL(url).host]);
        });
      } finally {
        await cluster.stop();
      }
    },
  );
});

const counted = (length: number) => Array.from({ length }, (_, n) => n + 1);

async function inBrowser(url: string, work: (page: Page, asked: Set<string>) => Promise<void>): Promise<void> {
  const userData = mkdtempSync(join(tmpdir(), 'astraml-browser-'));
  const flags =
    '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';
  const context = await driver.launchPersistentContext(userData, {
    executablePath: chromium(),
    args: flags.split(' '),
  });
  try {
    const page = await context.newPage();
    const asked = new Set<string>();
    const problems: string[] = [];
    page.on('request', (request) => asked.add(new URL(request.url()).host));
    page.on('websocket', (socket) => asked.add(new URL(socket.url()).host));
    page.on('pageerror', (error) => problems.push(error.message));
    await work(page, asked);
    assert.deepEqual(problems, [], url);
  } finally {
    await context.close();
    rmSync(userData, { recursive: true, force: true });
  }
}

async function ended(page: Page): Promise<void> {
  await page.locator('#state', { hasText: 'SUCCEEDED' }).waitFor();
  await page.locator('#link', { hasText: 'ended' }).waitFor();
}

async function windowsShown(page: Page): Promise<number> {
  return Number(await page.locator('figure[data-name="train/loss"]').getAttribute('data-windows'));
}

async function numbersShown(page: Page): Promise<number[]> {
  const texts = await page.locator('#log div').evaluateAll((rows) => rows.map((row) => row.getAttribute('data-seq')));
  return texts.map(Number);
}
