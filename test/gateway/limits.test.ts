// What an operation may ask for: each refusal the same over POST, GET, SSE and WebSocket, in less than a second, never
// a 500 and never with the value that is at fault.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import fc from 'fast-check';
import { getIntrospectionQuery, parse, validate } from 'graphql';
import { createDocuments } from '../../src/gateway/graphql/documents.ts';
import { limitsRule } from '../../src/graphql/limits.ts';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import {
  adminToken,
  bearer,
  createProject,
  type Door,
  type GraphqlError,
  jsonType,
  openDoor,
  type Operation,
  type Outcome,
  post,
  send,
  submitJob,
  type Transport,
  transportNames,
  transports,
} from '../support/door.ts';

let door: Door;
let port: number;
before(async () => {
  door = await openDoor();
  port = door.port;
  await createProject(port, 'p-limits');
  await submitJob(port, 'p-limits');
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

const many = (count: number, one: (index: number) => string) =>
  Array.from({ length: count }, (_, i) => one(i)).join(' ');
const pair = (open: string, middle: string, close: string, count: number) =>
  open.repeat(count) + middle + close.repeat(count);

/** Runs an operation over a transport; it must take less than a second. */
async function run(transport: Transport, operation: Operation): Promise<Outcome> {
  const startedAt = performance.now();
  const outcome = await transports[transport](port, operation);
  const tookMs = Math.round(performance.now() - startedAt);
  assert.ok(tookMs < 1_000, `${transport} took ${tookMs} ms`);
  return outcome;
}

async function assertRefused(
  transport: Transport,
  operation: Operation,
  code: string,
  alsoRight: RegExp = /^$/,
): Promise<GraphqlError[]> {
  const { result, open, text } = await run(transport, operation);
  const errors = result.errors ?? [];
  assert.ok(
    errors.some((error) => error.extensions.code === code || alsoRight.test(error.extensions.code)),
    `${transport}: ${text.slice(0, 500)}`,
  );
  assert.ok(
    errors.every((error) => error.extensions.code !== 'INTERNAL' && error.extensions['retryable'] === false),
    text.slice(0, 500),
  );
  assert.equal(result.data ?? null, null);
  assert.equal(open, true);
  assert.ok(text.length < 64 * 1024, `an answer of ${text.length} characters`);
  return errors;
}

const fragments = getIntrospectionQuery().slice(getIntrospectionQuery().indexOf('fragment FullType'));

suite('An operation is too large', () => {
  const documents: Record<string, string> = {
    'with 1,001 aliases': `{ ${many(1_001, (i) => `a${i}: __typename`)} }`,
    'with 101 aliases below': `{ viewer { token { ${many(101, (i) => `a${i}: name`)} } } }`,
    'with 51 root fields': `{ ${many(51, (i) => `a${i}: __typename`)} }`,
    'with a depth of 50': `{ project(id: "p") { ${pair('jobs { nodes { project { ', 'id', ' } } }', 16)} } }`,
    'with a depth of 50 in inline fragments': `{ ${pair('viewer { ... { token { project { ', 'id', ' } } } }', 12)} }`,
    'with 51 directives': `{ ${many(51, () => '...@include(if: true) { __typename }')} }`,
    'with 10,000 directives': `{ __typename ${many(10_000, () => '@skip(if:false)')} }`.slice(0, 60_000),
    'with fragments that fan out': `{ viewer { projects { nodes { ...f0 } } } } ${many(
      20,
      (i) => `fragment f${i} on Project { a: jobs { nodes { project { ...f${i + 1} } } } ...f${i + 1} }`,
    )} fragment f20 on Project { jobs { nodes { id } } }`,
    'with 20,000 nested lists': `{ nodes(ids: ${pair('[', '', ']', 20_000)}) { id } }`,
    'with 1,300 nested selections': pair('{a', '', '}', 1_300),
    'with an introspection of depth 20': `{ __schema { types { fields { type { ${pair('ofType { ', 'name', ' }', 20)} } } } } }`,
    'with an introspection in circles': `{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }`,
    'with 50 introspections': `{ ${many(50, (i) => `a${i}: __schema { types { ...FullType } }`)} } ${fragments}`,
    'with 90 introspections inside of one': `{ __schema { ${many(90, (i) => `a${i}: types { ...FullType }`)} } } ${fragments}`,
    'with pages in pages': '{ jobs(first: 100) { nodes { logs(first: 1000) { nodes { text } } } } }',
    'with pages in edges': '{ jobs(first: 100) { edges { node { logs(last: 1000) { edges { node { text } } } } } } }',
    'with a page of less than nothing beside it':
      '{ a: jobs(first: -2000000000) { nodes { id } } jobs(first: 100) { nodes { logs(first: 1000) { nodes { text } } } } }',
    'with pages in nodes': `{ nodes(ids: [${many(100, () => '"job_1"')}]) { ... on Job { logs(first: 1000) { nodes { text } } } } }`,
    'with metrics of metrics': '{ jobs { nodes { metrics { windows(first: 1000) { nodes { mean } } } } } }',
  };
  for (const [name, query] of Object.entries(documents)) {
    test(name, async () => {
      for (const transport of transportNames) {
        if (transport === 'GET' && query.length > 12_000) continue; // its headers are refused, with 431
        await assertRefused(transport, { query }, 'OPERATION_TOO_LARGE');
        await assertRefused(transport, { query, token: null }, 'OPERATION_TOO_LARGE');
      }
    });
  }

  test('with sizes in variables and in their defaults', async () => {
    const page = 'logs(first: 1000) { nodes { text } }';
    const ids = Array.from({ length: 100 }, () => 'job_1');
    const operations: Operation[] = [
      { query: `query ($n: Int) { jobs(first: $n) { nodes { ${page} } } }`, variables: { n: 100 } },
      { query: `query ($n: Int = 100) { jobs(first: $n) { nodes { ${page} } } }` },
      { query: `query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Job { ${page} } } }`, variables: { ids } },
      {
        query: `query ($ids: [ID!]! = [${ids.map((id) => `"${id}"`).join()}]) { nodes(ids: $ids) { ... on Job { ${page} } } }`,
      },
      {
        query: `query ($n: Int) { a: jobs(first: $n) { nodes { id } } jobs(first: 100) { nodes { ${page} } } }`,
        variables: { n: -2_000_000_000 },
      },
    ];
    for (const operation of operations) {
      for (const transport of transportNames) await assertRefused(transport, operation, 'OPERATION_TOO_LARGE');
    }
  });

  test('before a subscription opens', async () => {
    const query = `subscription { jobUpdated(jobId: "job_1") { job { project { jobs(first: 100) {
      nodes { logs(first: 1000) { nodes { text } } } } } } } }`;
    for (const transport of transportNames) await assertRefused(transport, { query }, 'OPERATION_TOO_LARGE');
    assert.equal(door.gateway.feeds.size, 0);
  });

  test('with a URL of more than 16 KiB', async () => {
    const path = `/graphql?query=${encodeURIComponent(`{ ${many(1_001, (i) => `a${i}: __typename`)} }`)}`;
    assert.equal((await send(port, { method: 'GET', path })).status, 431);
  });
});

suite('An operation is refused', () => {
  const documents: Record<string, string> = {
    'with a cycle of fragments': '{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }',
    'with a fragment in itself': '{ ...A } fragment A on Query { __typename ...A }',
    'with 250 fragments in a circle': `{ ${many(250, (i) => `...f${i}`)} } ${many(250, (i) => `fragment f${i} on Query { viewer { __typename } ...f${(i + 1) % 250} }`)}`,
    'with 1,300 equal fields': `{ jobs { nodes { ${many(1_300, () => 'id')} nothing } } }`,
    'with 900 equal objects': `{ ${many(900, () => 'viewer { __typename }')} nothing }`,
    'with 1,900 nested lists': `{ nodes(ids: ${pair('[', '', ']', 1_900)}) { id } }`,
    'with 1,900 nested list types': `query ($a: ${pair('[', 'ID', ']', 1_900)}) { nodes(ids: $a) { id } }`,
    'with 900 nested objects': `{ previewJob(spec: { hyperparams: { extra: ${pair('{ a: ', '1', ' }', 900)} } }) { specHash } }`,
    'with 900 variables': `query (${many(900, (i) => `$a${i}: Int`)}) { __typename }`,
    'with unknown directives': '{ jobs { ... @defer { totalCount } nodes @stream { id } } }',
    'with definitions that run nothing': 'type A { b: Int } extend type Query { a: Int }',
    'with nothing in it': ' # nothing',
    'with a page of 99,999,999': '{ jobs(first: 99999999) { nodes { id } } }',
    'with a page of 1e9': '{ jobs(first: 1e9) { nodes { id } } }',
    'with a page of nothing': '{ jobs(first: 0) { nodes { id } } }',
    'with a page from both ends': '{ jobs(first: 1, last: 1) { nodes { id } } }',
    'with 101 ids': `{ nodes(ids: [${many(101, () => '"job_1"')}]) { id } }`,
    'with NUL in a text': '{ jobs(filter: { model: "a\\u0000b" }) { nodes { id } } }',
    'with half a character': '{ jobs(filter: { model: "a\\ud800" }) { nodes { id } } }',
    'with a time before all calendars': '{ jobs(filter: { createdAfter: "0000-01-01T00:00:00Z" }) { nodes { id } } }',
  };
  for (const [name, query] of Object.entries(documents)) {
    test(name, async () => {
      for (const transport of transportNames) {
        if (transport === 'GET' && query.length > 12_000) continue;
        await assertRefused(transport, { query }, 'BAD_USER_INPUT', /OPERATION_TOO_LARGE/);
      }
    });
  }

  test('with more fragments than matter, it is answered all the same', async () => {
    const query = `{ ...f0 } ${many(30, (i) => `fragment f${i} on Query { ...f${i + 1} ...f${i + 1} ...f${i + 1} }`)}
      fragment f30 on Query { __typename }`;
    for (const transport of transportNames) {
      assert.deepEqual((await run(transport, { query })).result, { data: { __typename: 'Query' } });
    }
  });
});

suite('Variables are refused', () => {
  const preview = 'query ($spec: JobSpecInput!) { previewJob(spec: $spec) { specHash } }';
  const filter = 'query ($filter: JobFilter!) { jobs(filter: $filter) { nodes { id } } }';

  test('with lists nested however deep', async () => {
    for (const depth of [33, 500, 1_000, 2_000, 3_000, 5_000, 20_000, 500_000]) {
      const deep = pair('[', '', ']', depth);
      const places = [
        `"query":"query ($ids: [ID!]!) { nodes(ids: $ids) { id } }","variables":{"ids":${deep}}`,
        `"query":"${preview}","variables":{"spec":{"hyperparams":{"extra":{"a":${deep}}}}}`,
      ];
      for (const place of places) {
        const startedAt = performance.now();
        const answer = await send(port, { headers: { ...jsonType, ...bearer(adminToken) }, body: `{${place}}` });
        assert.ok(performance.now() - startedAt < 1_000);
        assert.equal(answer.json().errors?.[0]?.extensions.code, 'BAD_USER_INPUT', answer.text.slice(0, 300));
      }
      const anywhere = await send(port, {
        headers: { ...jsonType, ...bearer(adminToken) },
        body: `{"query":"{ __typename }","extensions":{"a":${deep}}}`,
      });
      assert.ok([200, 400].includes(anywhere.status));
    }
  });

  test('by the thousand in less than a second, the first twenty by name', async () => {
    const operations: Operation[] = [
      {
        query: preview,
        variables: { spec: Object.fromEntries(Array.from({ length: 40_000 }, (_, i) => [`hyperparam${i}`, 1])) },
      },
      { query: filter, variables: { filter: { states: Array.from({ length: 90_000 }, (_, i) => `x${i}`) } } },
      { query: preview, variables: { spec: { ['k'.repeat(900_000)]: 1 } } },
    ];
    for (const operation of operations) {
      for (const token of [adminToken, null]) {
        for (const transport of ['POST', 'SSE'] as const) {
          const errors = await assertRefused(transport, { ...operation, token }, 'BAD_USER_INPUT');
          assert.ok(errors.length <= 20 + 1);
        }
      }
    }
  });

  test('with names that objects have from birth', async () => {
    for (const name of ['constructor', 'toString', 'hasOwnProperty', '__defineGetter__']) {
      for (const transport of transportNames) {
        await assertRefused(transport, { query: filter, variables: { filter: { [name]: 1 } } }, 'BAD_USER_INPUT');
      }
    }
  });
});

suite('A value that is wrong', () => {
  const secret = 'hunter2SECRET';
  const literals = [
    `model: "m", dataset: "d", priority: "${secret}"`,
    `model: "m", dataset: "d", priority: "a value: ${secret} found: ${secret}."`,
    `model: ${secret}, dataset: "d"`,
    `model: { a: "${secret}" }, dataset: "d"`,
    `model: ["${secret}", { ${secret}: 1 }], dataset: "d"`,
    `model: "m", dataset: "d", priority: """${secret}\n"a" ${secret}"""`,
    `modell: "${secret}"`,
    `model: 1, dataset: "${secret}"`,
    `model: "m", dataset: "d", resources: "${secret}"`,
    `model: "m", dataset: "d", env: [{ name: "A", from: { value: "${secret}", vlue: "${secret}" } }]`,
    `model: "m", dataset: "d", env: [{ name: "A", from: { value: 5, value: "${secret}" } }]`,
    `model: "m", dataset: "d", hyperparams: { lr: "${secret}", extra: "${secret}" }`,
    `model: "m", dataset: "d", hyperparams: { lr: ${secret} }`,
    `model: "\\q${secret}"`,
    `model: "${secret}`,
    `model: "m" "${secret}"`,
    `model: my ${secret} key`,
    `model: my key ${secret}`,
    `model: 5 """${secret}"""`,
    `model: ["m" "${secret}"`,
    `model: $ "${secret}"`,
  ];
  test('as a literal is in no answer', async () => {
    for (const literal of literals) {
      const query = `{ previewJob(spec: { projectId: "p-limits", ${literal} }) { specHash } }`;
      for (const transport of transportNames) {
        const errors = await assertRefused(transport, { query }, 'BAD_USER_INPUT');
        assert.equal(JSON.stringify(errors).includes(secret), false, `${literal}: ${JSON.stringify(errors)}`);
      }
    }
    for (const query of [
      `{ jobs(filter: { states: [${secret}] }) { nodes { id } } }`,
      `{ jobs(filter: { states: "${secret}" }) { nodes { id } } }`,
      `{ jobs(filter: { createdAfter: "${secret}" }) { nodes { id } } }`,
      `query ($a: Int = "${secret}") { jobs(first: $a) { nodes { id } } }`,
      `query ($a: JobFilter = { search: ["${secret}"] }) { jobs(filter: $a) { nodes { id } } }`,
      `{ jobs @skip(if: "${secret}") { nodes { id } } }`,
    ]) {
      for (const transport of transportNames) {
        const errors = await assertRefused(transport, { query }, 'BAD_USER_INPUT');
        assert.equal(JSON.stringify(errors).includes(secret), false, `${query}: ${JSON.stringify(errors)}`);
      }
    }
  });

  test('in a variable, or next to one, is in no answer', async () => {
    const spec = { projectId: 'p-limits', model: 'm', dataset: 'd' };
    const specs: unknown[] = [
      { ...spec, model: { password: secret } },
      { ...spec, model: [secret] },
      { ...spec, priority: secret, notes: secret },
      { ...spec, priority: 5.5, notes: secret },
      { ...spec, notes: secret, unknown: secret },
      { ...spec, env: [{ name: 'A', from: secret }] },
      { ...spec, env: [{ name: 'A', from: { value: secret, other: secret } }] },
      { ...spec, env: { A: secret } },
      { ...spec, hyperparams: { lr: secret, extra: secret } },
      { ...spec, hyperparams: { extra: { a: secret, deep: JSON.parse(pair('[', '1', ']', 40)) as unknown } } },
      secret,
      [secret],
    ];
    for (const wrong of specs) {
      const query = 'query ($spec: JobSpecInput!) { previewJob(spec: $spec) { specHash } }';
      for (const transport of transportNames) {
        const errors = await assertRefused(transport, { query, variables: { spec: wrong } }, 'BAD_USER_INPUT');
        assert.equal(JSON.stringify(errors).includes(secret), false, JSON.stringify(errors));
      }
    }
    const typed: [string, unknown][] = [
      'Int',
      'Float',
      'Boolean',
      'ID',
      'DateTime',
      'SafeInt',
      'JobState',
      'JobOrder',
    ].map((name) => [name, { a: secret }]);
    for (const [type, value] of [...typed, ['String', [secret]], ['JSONObject', secret]] as [string, unknown][]) {
      const errors = await assertRefused(
        'POST',
        { query: `query ($v: ${type}) { __typename }`, variables: { v: value } },
        'BAD_USER_INPUT',
      );
      assert.equal(JSON.stringify(errors).includes(secret), false, JSON.stringify(errors));
    }
  });
});

suite('Introspection', () => {
  const whole = getIntrospectionQuery({
    descriptions: true,
    specifiedByUrl: true,
    directiveIsRepeatable: true,
    schemaDescription: true,
    inputValueDeprecation: true,
    experimentalDirectiveDeprecation: true,
    oneOf: true,
  });

  test('by the standard queries is answered, over every transport, also to the anonymous', async () => {
    for (const query of [getIntrospectionQuery(), whole, getIntrospectionQuery({ descriptions: false })]) {
      for (const transport of transportNames) {
        const { result, text } = await run(transport, { query, token: null });
        assert.equal(result.errors, undefined, text.slice(0, 300));
        assert.ok(result.data?.['__schema']);
      }
    }
  });

  test('counts apart from what else an operation asks', async () => {
    const query = `query A { __schema { types { ...FullType } } jobs(first: 100) { nodes { id } } } ${fragments}`;
    assert.equal((await run('POST', { query })).result.errors, undefined);
  });

  test('can be switched off, for every caller and over every transport', async () => {
    const closed = await openDoor({ ASTRAML_INTROSPECTION: 'false', ASTRAML_GRAPHIQL: 'false' });
    try {
      for (const query of [
        whole,
        '{ __type(name: "Job") { name } }',
        '{ ...A } fragment A on Query { a: __schema { description } }',
      ]) {
        for (const transport of transportNames) {
          for (const token of [adminToken, null]) {
            const { result, text } = await transports[transport](closed.port, { query, token });
            assert.equal(result.errors?.[0]?.extensions.code, 'BAD_USER_INPUT', text.slice(0, 300));
            assert.equal(result.data ?? null, null);
          }
        }
      }
      const { result } = await transports.POST(closed.port, { query: '{ __typename }', token: null });
      assert.deepEqual(result, { data: { __typename: 'Query' } });
      const page = await send(closed.port, { method: 'GET', path: '/graphql', headers: { accept: 'text/html' } });
      assert.doesNotMatch(page.text, /<html/i);
    } finally {
      await closed.close();
    }
  });
});

suite('A suggestion', () => {
  const slips: Operation[] = [
    { query: '{ jobz { nodes { id } } }' },
    { query: '{ jobs(frst: 1) { nodes { id } } }' },
    { query: '{ viewer { ... on Tokn { id } } }' },
    { query: '{ node(id: "a") { model } }' },
    { query: '{ jobs(filter: { modl: "a" }) { nodes { id } } }' },
    { query: '{ jobs(filter: { states: [QUEUD] }) { nodes { id } } }' },
    { query: '{ __typename @skp(if: true) }' },
    { query: 'query ($f: JobFiltr) { jobs(filter: $f) { nodes { id } } }' },
    { query: 'query ($f: JobFilter) { jobs(filter: $f) { nodes { id } } }', variables: { f: { modl: 'a' } } },
  ];
  test('is made to who is signed in, and to nobody else', async () => {
    let made = 0;
    for (const operation of slips) {
      for (const transport of transportNames) {
        const hidden = await assertRefused(transport, { ...operation, token: null }, 'BAD_USER_INPUT');
        assert.doesNotMatch(JSON.stringify(hidden), /did you mean/i);
        const shown = await assertRefused(transport, operation, 'BAD_USER_INPUT');
        made += Number(/did you mean/i.test(JSON.stringify(shown)));
      }
    }
    assert.ok(made >= 4 * (slips.length - 2), `${made} suggestions were made`);
  });
});

suite('The rule of limits', () => {
  const names = [
    'jobs',
    'nodes',
    'edges',
    'node',
    'viewer',
    'project',
    'logs',
    'totalCount',
    '__schema',
    'types',
    'fields',
    'x',
  ];
  const selection: fc.Memo<string> = fc.memo((depth) =>
    depth <= 1
      ? fc.constantFrom(...names)
      : fc.oneof(
          fc.constantFrom(...names),
          fc
            .tuple(fc.constantFrom(...names), argument, fc.array(selection(depth - 1), { minLength: 1, maxLength: 4 }))
            .map(([name, args, inner]) => `a: ${name}${args} @skip(if: $b) { ${inner.join(' ')} }`),
          fc.constantFrom('...A', '...B', '...C', '...{ id }', '... on Job { ...A }', '... on Nothing { ...B }'),
        ),
  );
  const argument = fc.oneof(
    fc.constant(''),
    fc.integer().map((size) => `(first: ${size})`),
    fc.constantFrom(
      '(first: $n)',
      '(last: $m)',
      '(ids: [])',
      '(ids: $ids)',
      '(first: "a")',
      '(first: null)',
      '(first: 1.5)',
      '(first: $n, last: 5)',
    ),
  );
  const document = fc
    .tuple(fc.constantFrom('query', 'mutation', 'subscription'), selection(4), selection(3), selection(3))
    .map(
      ([kind, root, a, b]) =>
        `${kind} Q($n: Int = 5, $m: Int, $ids: [ID!] = ["a"], $b: Boolean!) { ${root} }
         fragment A on Job { ${a} } fragment B on Query { ${b} ...A }`,
    );

  test('counts a list whose length the field says by that length', () => {
    const query = `mutation { setPolicy(input: { projectId: "p", rules: [], dryRun: true }) {
      ... on PolicyPayload { refusedJobs { id } } } }`;
    let cost = 0;
    const rule = limitsRule({ maxDepth: 12, maxCost: 20_000, variables: {}, onCost: (counted) => (cost = counted) });
    assert.deepEqual(validate(schema, parse(query), [rule]), []);
    assert.equal(cost, 101);
  });

  test('never throws, and never finds less than nothing', () => {
    const variables = fc.record({ n: fc.anything(), m: fc.anything(), ids: fc.anything() }, { requiredKeys: [] });
    fc.assert(
      fc.property(document, variables, (text, given) => {
        const rule = limitsRule({ maxDepth: -1, maxCost: -1, variables: given });
        const errors = validate(schema, parse(text), [rule]);
        const costs = errors.map((error) => /has (?:cost|depth) (\S+);/.exec(error.message)?.[1]).filter(Boolean);
        assert.equal(costs.length, 2);
        assert.ok(costs.every((cost) => Number(cost) >= 0));
      }),
      { numRuns: 500 },
    );
  });

  test('never throws at text that parses', () => {
    const words = fc.constantFrom(
      '{',
      '}',
      'query',
      'fragment',
      'A',
      'on',
      'Query',
      '...',
      '(',
      ')',
      'first',
      ':',
      '1',
      '$n',
      '@',
      '[',
      ']',
      '"a"',
      '=',
      'jobs',
      'type',
      'extend',
    );
    const soup = fc.array(words, { maxLength: 30 }).map((parts) => parts.join(' '));
    fc.assert(
      fc.property(soup, (text) => {
        let parsed;
        try {
          parsed = parse(text, { maxTokens: 4_000 });
        } catch {
          return;
        }
        validate(schema, parsed, [limitsRule({ maxDepth: 12, maxCost: 20_000, variables: {} })]);
      }),
      { numRuns: 2_000 },
    );
  });

  test('the gateway answers any body without a bug of its own', async () => {
    const body = fc.oneof(
      fc.json(),
      fc.string(),
      fc
        .record(
          {
            query: fc.oneof(document, fc.string(), fc.jsonValue()),
            variables: fc.jsonValue(),
            operationName: fc.jsonValue(),
          },
          { requiredKeys: [] },
        )
        .map((value) => JSON.stringify(value)),
    );
    await fc.assert(
      fc.asyncProperty(body, async (text) => {
        const answer = await send(port, { headers: { ...jsonType, ...bearer(adminToken) }, body: text });
        assert.ok(answer.status < 500, answer.text);
        assert.doesNotMatch(answer.text, /INTERNAL/);
      }),
      { numRuns: 200 },
    );
    assert.equal((await post(port, { query: '{ __typename }' })).status, 200);
  });
});

suite('A text that was sent before', () => {
  const query = 'query ($n: Int!) { jobs(first: $n) { nodes { events(first: $n) { nodes { id } } } } }';
  const sizes = [5, 900, 5, 'five', 5];

  for (const transport of transportNames) {
    test(`is checked with the variables of each operation, over ${transport}`, async () => {
      const codes: unknown[] = [];
      for (const n of sizes) {
        const { result } = await run(transport, { query, variables: { n } });
        codes.push(result.errors?.[0]?.extensions?.code);
      }
      assert.deepEqual(codes, [undefined, 'OPERATION_TOO_LARGE', undefined, 'BAD_USER_INPUT', undefined]);
    });
  }

  test('is kept while there is room, and the one that was not asked for longest goes first', () => {
    const documents = createDocuments();
    const text = (index: number) => `{ a${index} # ${'x'.repeat(5_000)}\n}`;
    for (let index = 0; index < 30; index++) documents.keep(parse(text(index)));
    const first = documents.find(text(0));
    assert.ok(first && documents.isValid(first));
    documents.keep(first);
    for (let index = 30; index < 60; index++) documents.keep(parse(text(index)));
    assert.equal(documents.find(text(1)), undefined);
    assert.equal(documents.find(text(0)), first);
    assert.ok(documents.find(text(59)));
    const kept = Array.from({ length: 60 }, (_, index) => documents.find(text(index))).filter(Boolean);
    assert.ok(kept.length < 40, `${kept.length} are kept`);
    const long = parse(`{ a # ${'x'.repeat(9_000)}\n}`);
    documents.keep(long);
    assert.equal(documents.isValid(long), false);
  });
});
