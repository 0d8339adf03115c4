// The bar for secrets: a job that shouts its secret in every encoding, and afterwards nobody has heard it. Looked through
// is all that is kept or sent: Postgres, Redis and what passed through it, the runner's files, logs, subscribers.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Redis } from 'ioredis';
import postgres from 'postgres';
import { skipUnless } from '../support/absent.ts';
import { startCluster } from '../support/cluster.ts';
import { createProject, jobState, script, submit } from '../support/stack.ts';
import { monitor } from '../support/monitor.ts';
import { base32Of, bytesApart, xxdOf } from '../support/encodings.ts';
import { until } from '../support/until.ts';

const folder = mkdtempSync(join(tmpdir(), 'canary-'));
after(async () => {
  rmSync(folder, { recursive: true, force: true });
  await expectNoLeaks();
});

const random = () => randomBytes(18).toString('base64url').replaceAll(/[-_]/g, 'x');
/** What must not be found, wherever it stands in a value; the values have signs around it that encodings change. */
const [first, second, third, ofHost, numeric] = [random(), random(), random(), random(), '739184620517'];
const canary = `pä"s\\s ${first}/+\nsecond & ${second}\n%third% ${third}='`;
const hostCanary = `host ${ofHost}`;
/** Secrets of which a program prints a part: a text inside of JSON, the password of a URL. */
const [inJson, inUrl] = [random(), random()];
const account = JSON.stringify({ type: 'account', keys: [{ private: `pem\n${inJson}` }] });
const serviceUrl = `postgres://app:${inUrl}@db.example:5432/train`;
const tokens = [first, second, third, ofHost, numeric, inJson, inUrl];

/** The job: it prints what it knows in every way, waits until it was looked at, and fails. */
const trainer = `
  import { existsSync, readFileSync } from 'node:fs';
  import { setTimeout as sleep } from 'node:timers/promises';
  const secret = process.env.CANARY;
  const parts = [JSON.parse(process.env.ACCOUNT).keys[0].private.slice(4), new URL(process.env.SERVICE_URL).password];
  const all = [secret, ...secret.split('\\n'), process.env.PIN, readFileSync(process.env.HOST_FILE, 'utf8'), ...parts];
  const json = (value) => JSON.stringify(value).slice(1, -1);
  const bytes = (text) => Buffer.from(text).toString('hex').match(/../g);
  const base32 = (text) => {
    const bits = [...Buffer.from(text)].map((byte) => byte.toString(2).padStart(8, '0')).join('');
    const digit = (group) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'[parseInt(group.padEnd(5, '0'), 2)];
    return bits.match(/.{1,5}/g).map(digit).join('');
  };
  const xxd = (text) => Buffer.from(text).toString('hex').match(/.{1,32}/g).map((row, index) =>
    (index * 16).toString(16).padStart(8, '0') + ': ' + row.replace(/.{4}/g, '$& ').padEnd(40) + ' ' +
    Buffer.from(row, 'hex').toString('latin1').replace(/[^ -~]/g, '.')).join('\\n');
  const encodings = [
    (text) => text,
    (text) => Buffer.from(text).toString('base64'),
    (text) => Buffer.from(text).toString('base64').replace(/.{76}/g, '$&\\n'),
    (text) => Buffer.from('u:' + text).toString('base64'),
    (text) => Buffer.from('us:' + text + '!').toString('base64url'),
    (text) => Buffer.from(text).toString('hex'),
    (text) => Buffer.from(text).toString('hex').toUpperCase(),
    encodeURIComponent,
    (text) => encodeURIComponent(text).toLowerCase().length ? encodeURIComponent(text).replace(/%../g, (code) => code.toLowerCase()) : '',
    (text) => new URLSearchParams({ text }).toString(),
    (text) => JSON.stringify({ text }),
    (text) => JSON.stringify({ inner: JSON.stringify({ text }) }),
    (text) => JSON.stringify(text).replace(/[^\\0-~]/g, (unit) => '\\\\u' + unit.charCodeAt(0).toString(16).padStart(4, '0')),
    (text) => bytes(text).join(':'),
    (text) => bytes(text).join(' ').toUpperCase(),
    (text) => bytes(text).map((byte) => '0x' + byte).join(', '),
    (text) => bytes(text).map((byte) => '\\\\x' + byte).join(''),
    (text) => bytes(text).map((byte) => '&#x' + byte + ';').join(''),
    (text) => bytes(text).join('').replace(/.{4}/g, '$& '),
    xxd,
    (text) => xxd('some text before ' + text),
    (text) => bytes(text).join('').replace(/.{60}/g, '$&\\n'),
    (text) => Buffer.from('some text of another kind before: ' + text).toString('base64').replace(/.{76}/g, '$&\\n'),
    (text) => Buffer.from(Buffer.from(text).toString('base64')).toString('base64'),
    (text) => Buffer.from(Buffer.from(text).toString('base64')).toString('hex'),
    base32,
    (text) => base32(text).toLowerCase(),
    (text) => text.toUpperCase(),
    (text) => text.toLowerCase(),
    (text) => 'https://' + text.toLowerCase() + '.example.com/artifact-' + text + '.bin',
    (text) => [...text].join('\\x1b[31m'),
    (text) => text.slice(0, 12) + '\\x1b[0;1m' + text.slice(12),
    (text) => [...text].join('\\u200b'),
    (text) => text.slice(0, 12) + '\\u2060\\u00ad' + text.slice(12),
    (text) => JSON.stringify({ config: { env: [{ name: 'X', value: text }] } }, null, 2),
    (text) => 'Error: cannot open ' + JSON.stringify(json(text)),
  ];
  const mark = (marker) => console.log('::astraml ' + JSON.stringify(marker));
  console.log('begin');
  for (const [index, encode] of encodings.entries()) {
    for (const text of all) {
      console.log('out ' + index + ' <' + encode(text) + '>');
      console.error('err ' + index + ' ' + encode(text));
    }
  }
  for (const text of all) {
    const half = Math.floor(text.length / 2);
    process.stdout.write('split ' + text.slice(0, half));
    await sleep(150);
    process.stdout.write(text.slice(half) + '\\n');
    process.stderr.write('10% ' + text + '\\r20% ' + text + '\\r');
    await sleep(20);
    console.log('x'.repeat(16 * 1024 - 10) + text + 'y'.repeat(100));
    console.error('x'.repeat(16 * 1024 - 10) + text + 'y'.repeat(70_000));
    console.log('x'.repeat(64 * 1024 - 10) + text);
    mark({ type: 'alert', title: text, text: 'my ' + encodeURIComponent(text) });
    mark({ type: 'checkpoint', step: 1, path: '/out/' + text });
    mark({ ['a ' + text]: 1, loss: 0.5 });
    if (/^\\w+$/.test(text)) mark({ m: { [text.slice(0, half)]: { [text.slice(half)]: 1 } } });
    mark({ type: 'alert', title: text.slice(0, half), text: text.slice(half) });
    mark({ type: 'alert', title: 'in hex', text: Buffer.from(text).toString('hex') });
    mark({ type: 'checkpoint', step: 2, path: '/out/' + text.toLowerCase() + '/' + base32(text) });
  }
  mark({ loss: Number(process.env.PIN), step: 2 });
  mark({ loss: 0.25, step: 3 });
  console.log(secret);
  console.log('end');
  while (!existsSync(process.env.GO_FILE)) await sleep(20);
  console.error('failed with ' + secret);
  process.exit(3);
`;

/** Whether the text holds eight characters of a token, as they are or in an encoding: found by decoding, not by encoding. */
function heldTokens(whole: string): string[] {
  // eslint-disable-next-line no-control-regex -- escape sequences, as they are and as JSON has them
  const text = whole.replace(/(?:\x1b|\\u001b)\[[0-9;]*m|[\u200b\u2060\xad]/g, '');
  const decoded = [text, ...decodings(text)];
  const all = [...decoded, ...decodings(decoded.slice(1).join('\n'))].join('\n').toLowerCase();
  return tokens.filter((token) =>
    Array.from({ length: token.length - 7 }, (_, at) => token.slice(at, at + 8).toLowerCase()).some((part) =>
      all.includes(part),
    ),
  );
}

function decodings(text: string): string[] {
  const decoded: string[] = [];
  const squeezed = text.replace(/0x|\\+x|&#x/g, ' ').replace(/[ \t:,;]+/g, '');
  for (const [run] of `${text}\n${squeezed}`.matchAll(/(?:[0-9a-fA-F]{2}){8,}/g)) {
    decoded.push(Buffer.from(run, 'hex').toString('latin1'), Buffer.from(run.slice(1), 'hex').toString('latin1'));
  }
  for (const [run] of text.matchAll(/[\w+/-]{11,}/g)) {
    for (let from = 0; from < 4; from++) decoded.push(Buffer.from(run.slice(from), 'base64').toString('latin1'));
  }
  for (const [run] of text.matchAll(/\b(?:[A-Z2-7]{13,}|[a-z2-7]{13,})\b/g)) {
    const digits = [...run.toUpperCase()].map((digit) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(digit));
    const bits = digits.map((digit) => digit.toString(2).padStart(5, '0')).join('');
    for (let from = 0; from < 8; from++) {
      const bytes = bits.slice(from).match(/.{8}/g) ?? [];
      decoded.push(Buffer.from(bytes.map((byte) => parseInt(byte, 2))).toString('latin1'));
    }
  }
  return decoded;
}

function assertClean(where: string, text: string): void {
  const at = tokens.map((token) => text.indexOf(token.slice(0, 8))).find((index) => index >= 0) ?? 0;
  assert.deepEqual(heldTokens(text), [], `${where}: …${text.slice(Math.max(0, at - 100), at + 100)}…`);
}

async function dumpPostgres(url: string): Promise<string> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    const tables = await sql<{ name: string }[]>`
      select format('%I.%I', schemaname, tablename) as name from pg_tables
      where schemaname not in ('pg_catalog', 'information_schema')`;
    assert.ok(tables.length > 10);
    const dumps = await Promise.all(
      tables.map(({ name }) => sql.unsafe<{ row: string }[]>(`select t::text as row from ${name} t`)),
    );
    return dumps.flatMap((rows) => rows.map(({ row }) => row)).join('\n');
  } finally {
    await sql.end();
  }
}

async function dumpRedis(redis: Redis): Promise<string> {
  const keys = await redis.keys('*');
  const values = await Promise.all(
    keys.map(async (key) => {
      const type = await redis.type(key);
      if (type === 'stream') return JSON.stringify(await redis.xrange(key, '-', '+'));
      return type === 'string' ? await redis.get(key) : (await redis.dumpBuffer(key))?.toString('latin1');
    }),
  );
  return [...keys, ...values].join('\n');
}

/** What pages, plain HTTP and a query tell of the job. */
async function readDoors(url: string, token: string, id: string): Promise<string> {
  const query = `query ($id: ID!) { job(id: $id) {
    name spec command notes resolved { path value source } stateReason { message hint logExcerpt }
    logs(last: 500) { nodes { text } } metrics { name count last { value } }
    attempts { number reason { message logExcerpt } } events(last: 100) { nodes { type message data } } } }`;
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const read = async (path: string, init: RequestInit = {}) => {
    const answer = await fetch(`${url}${path}`, { ...init, headers: { ...headers, ...init.headers } });
    const text = await answer.text();
    assert.equal(answer.status, 200, `${path}: ${text.slice(0, 300)}`);
    return text;
  };
  const answer = await read('/graphql', { method: 'POST', body: JSON.stringify({ query, variables: { id } }) });
  assert.match(answer, /\[REDACTED\]/);
  const pages = [`/watch?job=${id}`, '/graphql', `/v1/jobs/${id}`, '/readyz', '/schema/job-spec.json'];
  return [
    answer,
    ...(await Promise.all(pages.map((path) => read(path, { headers: { accept: 'text/html, */*' } })))),
  ].join('\n');
}

function readFiles(path: string): string {
  const files = readdirSync(path, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.map((file) => `${file.name}\n${readFileSync(join(file.parentPath, file.name), 'utf8')}`).join('\n');
}

test('a search by decoding finds a token in each encoding', () => {
  for (const encoding of ['utf8', 'base64', 'base64url', 'hex'] as const) {
    const encoded = (before: string) => Buffer.from(`${before}${canary}`).toString(encoding);
    for (const before of ['', 'a', 'ab'])
      assert.deepEqual(heldTokens(`x "${encoded(before)}"`), [first, second, third], encoding);
  }
  const hidden = [
    ...[base32Of(first), base32Of(first).toLowerCase(), first.toUpperCase(), [...first].join('\u200b')],
    ...[bytesApart(first, ':'), bytesApart(first, ', 0x'), [...first].join('\x1b[31m'), xxdOf(first)[0] ?? ''],
    Buffer.from(Buffer.from(first).toString('base64')).toString('base64'),
  ];
  for (const text of hidden) assert.deepEqual(heldTokens(`x "${text}"`), [first], text);
});

test(
  'a secret that a job prints is kept, sent and told nowhere',
  { ...skipUnless('own postgres', 'own redis'), timeout: 120_000 },
  async (t) => {
    writeFileSync(join(folder, 'host'), hostCanary);
    process.env['CANARY_HOST_PASSWORD'] = hostCanary; // the runner's machine has it in its environment
    const cluster = await startCluster({ gateways: 1, logLevel: 'trace' });
    delete process.env['CANARY_HOST_PASSWORD'];
    const redis = new Redis(cluster.redis.url);
    const passed: string[] = [];
    const unescaped = (line: string) => line.replaceAll('\\"', '"').replaceAll('\\\\', '\\');
    const monitored = monitor(Number(new URL(cluster.redis.url).port), (line) => void passed.push(unescaped(line)));
    const subscriber = redis.duplicate();
    subscriber.on(
      'pmessage',
      (_pattern: string, channel: string, message: string) => void passed.push(channel, message),
    );
    await subscriber.psubscribe('*');
    t.after(async () => {
      monitored.destroy();
      subscriber.disconnect();
      redis.disconnect();
      await cluster.stop();
    });

    const client = cluster.client(0);
    await createProject(client, 'p-canary', script(trainer));
    for (const [name, value] of Object.entries({
      ...{ CANARY: canary, PIN: numeric, ACCOUNT: account, SERVICE_URL: serviceUrl },
    })) {
      const { setSecret } = await client.request<{ setSecret: { secret?: { name: string } } }>(
        'mutation ($input: SetSecretInput!) { setSecret(input: $input) { ... on SecretPayload { secret { name } } } }',
        { input: { projectId: 'p-canary', name, value } },
      );
      assert.equal(setSecret.secret?.name, name);
    }
    const literal = (name: string, value: string) => ({ name, from: { value } });
    const job = await submit(client, 'p-canary', {
      env: [
        { name: 'CANARY', from: { secret: 'CANARY' } },
        ...['PIN', 'ACCOUNT', 'SERVICE_URL'].map((name) => ({ name, from: { secret: name } })),
        literal('HOST_FILE', join(folder, 'host')),
        literal('GO_FILE', join(folder, 'go')),
      ],
    });

    const heard: string[] = [];
    const ending = new AbortController();
    t.after(() => ending.abort());
    const listen = async (query: string) => {
      for await (const event of client.follow<unknown>(query, { id: job.id }, { signal: ending.signal }))
        heard.push(JSON.stringify(event));
    };
    const listening = Promise.all([
      listen(
        'subscription ($id: ID!, $after: String) { jobLogs(jobId: $id, after: $after) { lines { stream text } endCursor done } }',
      ),
      listen(
        'subscription ($id: ID!, $after: String) { jobMetrics(jobId: $id, after: $after) { windows { name mean } endCursor done } }',
      ),
      listen(
        'subscription ($id: ID!, $after: String) { jobEvents(jobId: $id, after: $after) { events { type message data } endCursor done } }',
      ),
    ]);
    await until(() => heard.some((event) => event.includes('"text":"end"')), {
      timeoutMs: 30_000,
      what: 'the end of the output',
    });
    const files = readFiles(cluster.workDir);
    assert.match(files, /\[REDACTED\]/); // the spool is there, and was looked at
    assertClean('files while it runs', files);
    assertClean('Postgres while it runs', await dumpPostgres(cluster.databaseUrl));
    assertClean('Redis while it runs', await dumpRedis(redis));
    writeFileSync(join(folder, 'go'), '');
    await listening;

    const { state, stateReason } = await jobState(client, job.id);
    assert.equal(state, 'FAILED');
    assert.ok(
      stateReason?.logExcerpt.some((line) => line.includes('[REDACTED]')),
      String(stateReason?.logExcerpt),
    );
    const log = heard.join('\n');
    assert.ok(
      log.includes('out 35 <') && log.includes('split [REDACTED]') && log.includes('20% [REDACTED]'),
      log.slice(0, 2_000),
    );
    assert.ok(log.includes('"mean":0.25') || log.includes('"name":"loss"'), 'an ordinary point arrived');
    assertClean('subscribers', log);
    assertClean('the outcome', JSON.stringify(stateReason));
    assertClean('pages and doors', await readDoors(cluster.urls[0] ?? '', cluster.token, job.id));
    assertClean('files', readFiles(cluster.workDir));
    assertClean('Postgres', await dumpPostgres(cluster.databaseUrl));
    assertClean('Redis', await dumpRedis(redis));
    assert.ok(
      passed.some((text) => text.includes('[REDACTED]')),
      'what passed through Redis was heard',
    );
    assertClean('what passed through Redis', passed.join('\n'));
    assertClean(
      'logs of gateway, runner, Postgres and Redis',
      [cluster.output(), cluster.postgres.log(), cluster.redis.log()].join('\n'),
    );
  },
);
