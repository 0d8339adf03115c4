// /watch in a real browser: lines live, a chart for each metric that grows, and no request to anywhere else.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { chromium as driver } from 'playwright-core';
import { chromium, skipUnless } from './support/absent.ts';
import { createProject, script, type Stack, startStack, submit } from './support/stack.ts';

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

suite('in a browser', skipUnless('chromium'), () => {
  test('it follows a job to its end, and asks nobody but the gateway', { timeout: 60_000 }, async () => {
    const userData = mkdtempSync(join(tmpdir(), 'astraml-browser-'));
    const context = await driver.launchPersistentContext(userData, {
      executablePath: chromium(),
      args: [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    });
    try {
      const page = await context.newPage();
      const asked = new Set<string>();
      const problems: string[] = [];
      page.on('request', (request) => asked.add(new URL(request.url()).host));
      page.on('websocket', (socket) => asked.add(new URL(socket.url()).host));
      page.on('pageerror', (error) => problems.push(error.message));
      const { id } = await submit(stack.client, 'p-watch', { command: training, metrics: { windowSeconds: 1 } });
      await page.goto(`${stack.url}/watch#job=${id}&token=${stack.token}`);
      await page.locator('#log div', { hasText: /^line 5$/ }).waitFor();
      assert.equal(await page.locator('#state').textContent(), 'RUNNING', 'lines come while it runs');
      assert.equal(await page.locator('#link').textContent(), 'live');
      const chart = page.locator('figure[data-name="train/loss"]');
      const early = Number(await chart.getAttribute('data-windows'));
      await page.locator('#state', { hasText: 'SUCCEEDED' }).waitFor();
      await page.locator('#link', { hasText: 'ended' }).waitFor();
      const late = Number(await chart.getAttribute('data-windows'));
      assert.ok(early >= 1 && late >= early + 3, `the chart grew from ${early} to ${late} windows`);
      const seqs = await page
        .locator('#log div')
        .evaluateAll((rows) => rows.map((row) => Number((row as unknown as { dataset: { seq: string } }).dataset.seq)));
      assert.deepEqual(
        seqs,
        Array.from({ length: 62 }, (_, n) => n + 1),
      );
      assert.equal(await page.locator('#log img').count(), 0, 'markup is shown, not obeyed');
      assert.match((await page.locator('#log div').last().textContent()) ?? '', /^<img .* the end$/);
      assert.deepEqual([...asked], [new URL(stack.url).host]);
      assert.deepEqual(problems, []);
      if (process.env['ASTRAML_SCREENSHOT']) await page.screenshot({ path: process.env['ASTRAML_SCREENSHOT'] });
    } finally {
      await context.close();
      rmSync(userData, { recursive: true, force: true });
    }
  });
});
