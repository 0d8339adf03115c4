// What people send costs no more time than its bounds allow: patterns are linear, a spec is counted before it is read,
// a document before the rules that compare its fields. Times are of this thread's own work, not of a busy machine.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { getIntrospectionQuery, type GraphQLError, parse, specifiedRules, validate } from 'graphql';
import { LineSplitter } from '../../src/agent/lines.ts';
import { maxMarkerBytes, markerPrefix, parseMarker } from '../../src/agent/point.ts';
import { Redactor } from '../../src/agent/redact.ts';
import { closest } from '../../src/closest.ts';
import { invalid, maxIssues, notFound, Refusal, shorten } from '../../src/errors.ts';
import { parseJson } from '../../src/gateway/http/guard.ts';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { atMost, maxErrors, requestError } from '../../src/graphql/error.ts';
import { limitsRule, maxDocument, maxTokens } from '../../src/graphql/limits.ts';
import { countOverlaps } from '../../src/graphql/overlap.ts';
import { bounds } from '../../src/spec/bounds.ts';
import { credentialIn, credentialPatterns, findCredentials } from '../../src/spec/credential.ts';
import { parseSpec, unkeepable } from '../../src/spec/spec.ts';

const least = { project_id: 'p-demo', model: 'm', dataset: 'd' };

/** Milliseconds of work of this thread. */
function workOf(task: () => unknown): number {
  const before = process.threadCpuUsage();
  task();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1_000;
}

/** The least of several: what runs beside it, and the compiler, only ever add to the work. */
function leastWork(task: () => unknown, tries = 5): number {
  return Math.min(...Array.from({ length: tries }, () => workOf(task)));
}

const filled = (piece: string, length: number) => piece.repeat(Math.ceil(length / piece.length)).slice(0, length);
const many = (count: number, one: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => one(index)).join(' ');

const largest = 256 * 1024;

/**
 * Doubling the text must not take three times the work, where there is any to speak of. What is quadratic takes four times
 * whenever it is measured; a collection of garbage falls into one of three.
 */
function assertLinear(name: string, task: (text: string) => unknown, piece: string): void {
  const [half, whole] = [filled(piece, largest / 2), filled(piece, largest)];
  const measured: string[] = [];
  for (let tries = 0; tries < 3; tries++) {
    const first = leastWork(() => task(half));
    if (first < 5) return;
    const second = leastWork(() => task(whole));
    if (second <= 3 * first) return;
    measured.push(`${first} ms, then ${second} ms`);
  }
  assert.fail(`${name} takes ${measured.join('; ')} on ${JSON.stringify(piece)}`);
}

/** Beginnings of texts that a pattern matches, which it follows furthest before it gives up. */
function beginningsOf({ source, flags }: RegExp): fc.Arbitrary<string> {
  const plain = source.replaceAll(/\(\?<?[!=](?:\\.|\[[^\]]*\]|[^()[\]\\])*\)/g, '').replaceAll('\\b', '');
  const matching = fc.stringMatching(new RegExp(plain, flags.replaceAll(/[gi]/g, '')));
  return fc
    .tuple(matching, fc.nat(60), fc.constantFrom('', ' ', '-', '.', '\n', 'x'))
    .map(([text, length, between]) => `${text.slice(0, length + 1)}${between}`);
}

suite('A pattern takes time with the length of a text at most', () => {
  for (const pattern of credentialPatterns) {
    test(`for credentials: ${pattern.source.slice(0, 60)}`, () => {
      const piece = beginningsOf(pattern);
      fc.assert(
        fc.property(piece, (text) => assertLinear(pattern.source, (whole) => [...whole.matchAll(all(pattern))], text)),
        { numRuns: 15 },
      );
    });
  }

  test('on the beginnings of credentials that were quadratic, and on their like', () => {
    const pieces = ['eyJ-', 'eyJ_', 'x-eyJ', 'eyJaaaaaaaaaa.', 'eyJaaaaaaaaaa.eyJ', '-eyJaaaaaaaaaa.eyJaaaaaaaaaa.'];
    for (const piece of [...pieces, 'ghp_', 'hooks.slack.com/services/', 'a://b:', 'a.a-', 'key=', 'x=,', 'Bearer ']) {
      for (const pattern of credentialPatterns) assertLinear(pattern.source, (text) => text.search(pattern), piece);
    }
  });

  test('for secrets in output, lines and markers', () => {
    const redactor = new Redactor(['hunter2-SECRET', 'aaaaaaaa', 'eyJ-eyJ-eyJ-', 'line one\nline two']);
    const pieces = [
      'hunter2-SECRE',
      'aaaaaa',
      'eyJ-eyJ-eyJ',
      'aHVudGVyMi1TRUNSRV',
      '%68',
      '68 75 6e',
      '0x68,',
      '\\u0068',
      '6875 6e74 6572 322d 5345 4352 4554',
      'NB2W45DFOI',
      'YUhWdWRHVnlNaTFU',
      'h\u200bu\u200b',
      '\x1b[0;1',
      '\x1b]8;;',
      '\r',
      '\n',
      '\u{1F600}',
      '\x1b[',
    ];
    for (const piece of pieces) {
      assertLinear('redact', (text) => redactor.redact(text), piece);
      assertLinear('split', (text) => new LineSplitter(() => {}, { redactor }).write(Buffer.from(text)), piece);
    }
    for (const piece of ['"', '\\', '"\\', 'NaN', '-', '{"a":', '[', '"a":NaN,']) {
      const work = workOf(() => parseMarker(`${markerPrefix}${filled(piece, maxMarkerBytes - 20)}`, 0));
      assertLinear('marker', (text) => parseMarker(`${markerPrefix}${text}`, 0), piece);
      assert.ok(Number.isFinite(work));
    }
  });

  test('for errors', () => {
    for (const piece of ['"', 'x', '" ', 'x ', '"x', ' found: ', 'got invalid value ']) {
      assertLinear('shorten', shorten, piece);
      assertLinear('quote', (text) => notFound('Job', text), piece);
    }
  });
});

function all(pattern: RegExp): RegExp {
  return new RegExp(pattern.source, `${pattern.flags.replace('g', '')}g`);
}

test('a JSON Web Token is found wherever it stands', () => {
  const token = ['eyJhbGciOiJIUzI1NiJ9', 'eyJzdWIiOiIxMjM0NTY3ODkwIn0', 'dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P'].join('.');
  for (const text of [token, `x ${token}`, `a-${token}`, `eyJ-${token}`, `see:${token}.`, `v1.${token}`, `=${token}`]) {
    assert.equal(credentialIn(text, '')?.kind, 'a JSON Web Token', text);
  }
  for (const text of [token.slice(0, 30), 'eyJ.eyJ.eyJ', filled('eyJ-', 10_000)]) {
    assert.equal(credentialIn(text, ''), null, text);
  }
});

suite('A spec is bounded', () => {
  const names = (count: number, value: unknown = 1) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`name${index}`, value]));
  let deep: unknown = 1;
  for (let level = 0; level < 40; level++) deep = { deep };
  const tooLarge: [name: string, part: Record<string, unknown>, path: string, says: RegExp][] = [
    ['1,001 hyperparameters', { hyperparams: names(1_001) }, 'hyperparams', /more than 1000 names/],
    ['1,001 names inside of one', { hyperparams: { a: [{ b: names(1_001) }] } }, 'hyperparams', /more than 1000 names/],
    ['a name of 201 characters', { hyperparams: { ['k'.repeat(201)]: 1 } }, 'hyperparams', /a name of 201 .* 200 are/],
    ['a name of 900,000', { ['k'.repeat(900_000)]: 1 }, '', /more than 262144 characters/],
    ['a name of 900, unknown', { ['k'.repeat(900)]: 1 }, '', /The spec has a name of 900 characters; 200/],
    ['a value of 32,769', { hyperparams: { a: 'x '.repeat(16_385) } }, 'hyperparams.a', /32770 characters; 32768/],
    ['a parameter of 32,769', augmented({ a: 'x '.repeat(16_385) }), 'augmentation.0.params.a', /32768 are the most/],
    ['a list of 10,001', { hyperparams: { a: Array(10_001).fill(1) } }, 'hyperparams.a', /more than 10000 values/],
    ['half a million values', { x: Array(500_000).fill(1) }, 'x', /more than 10000 values/],
    ['33 levels', { hyperparams: { deep } }, 'hyperparams.deep.deep', /nested more than 32 deep/],
    ['300,000 characters', { tags: Array(50).fill('x y'.repeat(2_000)) }, '', /more than 262144 characters together/],
    [
      '1e999',
      { hyperparams: { a: [JSON.parse('1e999')] } },
      'hyperparams.a.0',
      /hyperparams.a.0 is too large a number/,
    ],
    ['501 variables', { env: names501() }, 'env', /takes 500 items at most/],
    ['notes of 20,001', { notes: 'x '.repeat(10_001) }, 'notes', /takes 20000 characters at most/],
    ['51 operations', { augmentation: Array(51).fill({ op: 'crop' }) }, 'augmentation', /takes 50 items at most/],
  ];
  function augmented(params: unknown) {
    return { augmentation: [{ op: 'crop', params }] };
  }
  function names501() {
    return Array.from({ length: 501 }, (_, index) => ({ name: `A${index}`, from: { value: '' } }));
  }
  for (const [name, part, path, says] of tooLarge) {
    test(`and refused for ${name}, by path and limit`, () => {
      const { spec, issues } = parseSpec({ ...least, ...part });
      assert.equal(spec, null);
      assert.deepEqual(
        issues.map(({ code, specPath }) => [code, specPath]),
        [['OUT_OF_RANGE', path]],
      );
      assert.match(issues[0]?.message ?? '', says);
      assert.ok(JSON.stringify(issues).length < 1_000);
    });
  }

  test('and what is as large as it may be is taken', () => {
    const hyperparams = { ...names(998), long: 'x '.repeat(16_384), ['k'.repeat(200)]: 1 };
    assert.deepEqual(parseSpec({ ...least, hyperparams }).issues, []);
    assert.deepEqual(parseSpec({ ...least, hyperparams: { a: Array(bounds.values - 10).fill(1) } }).issues, []);
  });

  test('and checking stops after a hundred problems and says so', () => {
    for (const part of [
      names(9_000),
      { hyperparams: { a: Array(9_000).fill('\0') } },
      { env: Array(400).fill({ x: 1 }) },
    ]) {
      const { issues } = parseSpec({ ...least, ...part });
      assert.equal(issues.length, maxIssues + 1);
      const { message, details } = invalid(issues);
      assert.match(message, /^Checking stopped after 100 problems, the first: /);
      assert.equal(details.issues?.length, maxIssues);
    }
    assert.match(invalid(parseSpec({ ...least, ...names(100) }).issues).message, /^100 problems, the first: /);
  });

  test('and a name that is too long for a credential’s sake is not repeated', () => {
    const token = `ghp_${filled('Zx81Kq0vTn5LwB2y', 36)}`;
    for (const part of [
      { [`${token} ${'x'.repeat(300)}`]: 1 },
      { hyperparams: { [token]: { ['x'.repeat(300)]: 1 } } },
    ]) {
      assert.ok(!JSON.stringify(parseSpec({ ...least, ...part })).includes(token));
    }
  });

  test('and costs little whatever it says', () => {
    const hostile: Record<string, Record<string, unknown>> = {
      '50,000 unknown keys': names(50_000),
      '9,000 unknown keys': names(9_000),
      'a key of 900 KB': { ['k'.repeat(900_000)]: 1 },
      'notes of eyJ-': { notes: filled('eyJ-', 900_000) },
      'half a million values': { x: Array(500_000).fill(1) },
      'near names': {
        hyperparams: Object.fromEntries(Array.from({ length: 990 }, (_, i) => [`gradient_accumulate_${i}`, 1])),
      },
      ...Object.fromEntries(
        ['eyJ-', 'token=', 'AIza', 'Az0+', 'sk-', 'a://b:', 'aws-aws-'].map((piece) => [
          `texts of ${piece}`,
          {
            hyperparams: Object.fromEntries(Array.from({ length: 7 }, (_, i) => [`token${i}`, filled(piece, 32_768)])),
          },
        ]),
      ),
    };
    for (const [name, part] of Object.entries(hostile)) {
      const spec = { ...least, ...part };
      const work = leastWork(() => [parseSpec(spec), unkeepable(spec)]);
      console.log(`a spec with ${name}: ${work.toFixed(1)} ms of work`);
      assert.ok(work < 250, `${name} takes ${work} ms`); // 50 ms on a machine of its own
    }
  });
});

suite('Nothing that people send is called or converted', () => {
  const names = [
    'toString',
    'valueOf',
    'toJSON',
    'then',
    'constructor',
    '__proto__',
    'length',
    'hasOwnProperty',
    'name',
  ];
  const values: unknown[] = ['', 0, null, {}, [], { toString: '', valueOf: '' }, [{ toString: '' }, []]];
  const hostile = [
    [{ toString: '' }, []],
    ...names.flatMap((name) =>
      values.map((value) => JSON.parse(`[{"${name}":${JSON.stringify(value)}},"--token",[]]`) as unknown),
    ),
  ];
  const places: ((value: unknown) => unknown)[] = [
    (value) => value,
    (value) => ({ ...least, hyperparams: value }),
    (value) => ({ ...least, hyperparams: { a: value, lr_scheduler: value, early_stopping: { goal: value } } }),
    (value) => ({ ...least, env: value }),
    (value) => ({ ...least, env: [{ name: value, from: value, not_secret: value }, value] }),
    (value) => ({ ...least, augmentation: [{ op: value, params: { a: value } }, value] }),
    (value) => ({ ...least, on_cut: value, command: value, tags: value, notes: value, defaults_version: value }),
    (value) => ({ project_id: value, model: value, dataset: value, metrics: value, logs: value, schedule: value }),
  ];
  test('in a spec, wherever it stands', () => {
    for (const value of hostile) {
      for (const place of places) {
        const sent = place(value);
        assert.ok(Array.isArray(parseSpec(sent).issues));
        assert.ok(Array.isArray(findCredentials(sent, ['x'])));
        assert.ok(Array.isArray(unkeepable(sent)));
      }
    }
  });

  test('found by a property run of ours: hyperparams [{"toString":""},[]]', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => Array.isArray(parseSpec({ hyperparams: value }).issues)),
      { examples: [[[{ toString: '' }, []]], [[{ valueOf: 1, toString: 1 }, '']]] },
    );
  });
});

suite('An error is short', () => {
  test('whatever it repeats, on the one way that all refusals take', () => {
    const long = 'x'.repeat(900_000);
    const error = new Refusal('INVALID_INPUT', `input.${long} and "${'a b'.repeat(9_000)}" are wrong.`, {
      path: ['input', long],
      hint: `Remove ${long}.`,
      issues: [{ code: 'UNKNOWN_FIELD', path: [long], specPath: long, message: `${long} is no field.`, hint: long }],
      differingPaths: Array<string>(500).fill(long),
    });
    const { path, hint, issues, differingPaths } = error.details;
    const texts = [...(path ?? []), ...(issues?.[0]?.path ?? []), issues?.[0]?.specPath, ...(differingPaths ?? [])];
    for (const text of texts) assert.ok(text && text.length <= 201, `${text?.length} characters`);
    assert.ok(error.message.length < 700 && (hint ?? '').length < 300 && (issues?.[0]?.message.length ?? 0) < 300);
    assert.equal(differingPaths?.length, maxIssues);
    assert.equal(shorten('A sentence of ours. '.repeat(50)), 'A sentence of ours. '.repeat(50));
  });

  test('and a suggestion is looked for among a thousand short names at most', () => {
    assert.equal(closest('modle', ['model']), 'model');
    assert.equal(closest('modle'.repeat(1_000), ['model']), undefined);
    const names = Array.from({ length: 100_000 }, (_, index) => `name-of-a-secret-${index}-${'y'.repeat(60)}`);
    const work = Math.min(...[1, 2, 3].map(() => workOf(() => closest(`name-of-a-secret-${'z'.repeat(60)}`, names))));
    console.log(`a suggestion among 100,000 names: ${work.toFixed(1)} ms of work`);
    assert.ok(work < 250);
  });
});

suite('A document costs little', () => {
  const jobFields =
    'id name state createdAt updatedAt startedAt finishedAt priority tags notes model dataset specHash spec';
  const submit = (spec: string) => `mutation { submitJob(input: { spec: { ${spec} } }) { __typename } }`;
  const twice = (text: string, levels: number): string =>
    levels === 0 ? text : `{ project ${twice(text, levels - 1)} project ${twice(text, levels - 1)} }`;
  /** Each makes a text of so many parts; as many as the limit of tokens takes. */
  const documents: Record<string, (count: number) => string> = {
    'equal root fields': (n) => `{ ${many(n, () => 'viewer { token { id } }')} }`,
    'equal leaves': (n) => `{ job(id: "a") { ${many(n, () => 'id')} } }`,
    'equal objects': (n) => `{ job(id: "a") { ${many(n, () => 'project { jobs { nodes { id } } }')} } }`,
    'fields twice in fields twice': (n) => `{ job(id: "a") ${twice('{ id }', Math.min(9, Math.floor(Math.log2(n))))} }`,
    'conflicting aliases': (n) => `{ ${many(n, (i) => `x: jobs(first: ${i}) { totalCount }`)} }`,
    'equal fields in inline fragments in each other': (n) =>
      `{ job(id: "a") { ${'... { '.repeat(40)} ${many(n, () => 'id')} ${'}'.repeat(40)} } }`,
    'inline fragments': (n) => `{ job(id: "a") { ${many(n, (i) => `... on Job { x${i % 90}: id }`)} } }`,
    'fragments of all': (n) =>
      `{ ${many(n, (i) => `...f${i}`)} } ${many(n, (i) => `fragment f${i} on Query { viewer { token { id } } }`)}`,
    'fragments in each other': (n) =>
      `{ ...f0 } ${many(n, (i) => `fragment f${i} on Query { ...f${i + 1} ...f${i + 1} viewer { __typename } }`)} fragment f${n} on Query { __typename }`,
    'a circle of fragments': (n) =>
      `{ ...f0 } ${many(n, (i) => `fragment f${i} on Query { ...f${(i + 1) % n} __typename }`)}`,
    'ninety-five large fragments': (n) =>
      `{ job(id: "a") { ${many(95, (i) => `...f${i}`)} } } ${many(95, (i) => `fragment f${i} on Job { ${jobFields.split(' ').slice(0, n).join(' ')} }`)}`,
    'fifty-seven large fragments': (n) =>
      `{ job(id: "a") { ${many(57, (i) => `...f${i}`)} } } ${many(57, (i) => `fragment f${i} on Job { ${jobFields.split(' ').slice(0, n).join(' ')} }`)}`,
    'spreads of one fragment': (n) =>
      `{ ${many(n, () => '...f')} } fragment f on Query { viewer { token { id name } } }`,
    operations: (n) => many(n, (i) => `query q${i} { __typename }`),
    'operations that share fragments': (n) =>
      `${many(50, (i) => `query q${i} { ...f0 }`)} ${many(Math.min(n, 95), (i) => `fragment f${i} on Query { ...f${i + 1} __typename }`)} fragment f${Math.min(n, 95)} on Query { __typename }`,
    variables: (n) => `query (${many(n, (i) => `$v${i}: ID!`)}) { nodes(ids: [${many(n, (i) => `$v${i}`)}]) { id } }`,
    'variables that nobody uses': (n) => `query (${many(n, (i) => `$v${i}: Int`)}) { __typename }`,
    directives: (n) => `{ __typename ${many(n, () => '@skip(if: false)')} }`,
    'unknown directives': (n) => `{ __typename ${many(n, (i) => `@x${i}`)} }`,
    'unknown fields': (n) => `{ job(id: "a") { ${many(n, (i) => `statusReasonn${i}`)} } }`,
    'unknown arguments': (n) => `{ jobs(${many(n, (i) => `fist${i}: 1`)}) { nodes { id } } }`,
    'unknown types': (n) => `{ viewer { ${many(n, (i) => `... on Jobb${i} { id }`)} } }`,
    'unknown values': (n) => `{ jobs(filter: { states: [${many(n, (i) => `QUEUEDD${i}`)}] }) { nodes { id } } }`,
    'unknown inputs': (n) => submit(many(n, (i) => `modell${i}: "1"`)),
    'unknown inputs beside a large one': (n) =>
      submit(`notes: "${'x'.repeat(maxDocument - 4_000)}" ${many(Math.min(n, 100), (i) => `modell${i}: "1"`)}`),
    'inputs in each other': (n) => submit(`hyperparams: { extra: ${'{ a: '.repeat(n)} 1 ${'}'.repeat(n)} }`),
    inputs: (n) => submit(`env: [${many(n, () => '{ name: "a", from: { value: "a" } }')}]`),
    'selections in each other': (n) => `${'{ viewer '.repeat(n)} { id } ${'}'.repeat(n)}`,
    'a large text': () => `{ job(id: "${'x'.repeat(maxDocument - 100)}") { id } }`,
    'a large text of escapes': () => `{ job(id: "${'\\u0041'.repeat(maxDocument / 6 - 100)}") { id } }`,
    'a large block': () => `{ job(id: """${'x\n'.repeat(maxDocument / 2 - 100)}""") { id } }`,
    'large comments': () => `{ __typename } ${'#\n'.repeat(maxDocument / 2 - 100)}`,
    'a large name': () => `{ ${'x'.repeat(maxDocument - 100)} }`,
    'a large number': () => `{ jobs(first: ${'1'.repeat(maxDocument - 100)}) { totalCount } }`,
    'large names': (n) =>
      `{ jobs(filter: { states: [${many(Math.min(n, 1_200), (i) => `${'X'.repeat(190)}${i}`)}] }) { totalCount } }`,
    'the standard introspection': () => getIntrospectionQuery(),
  };

  /** As the pipeline does it. */
  function check(text: string): readonly GraphQLError[] {
    const document = parse(text, { maxTokens });
    const tooLarge = validate(schema, document, [limitsRule({ maxDepth: 12, maxCost: 20_000, variables: {} })]);
    const errors = tooLarge.length > 0 ? tooLarge : validate(schema, document, specifiedRules, { maxErrors });
    return atMost(errors).map(requestError);
  }

  function largestOf(make: (count: number) => string): string {
    let [low, high] = [1, maxTokens];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (isTaken(make(middle))) low = middle;
      else high = middle - 1;
    }
    return make(low);
  }

  function isTaken(text: string): boolean {
    try {
      parse(text, { maxTokens });
      return text.length <= maxDocument;
    } catch {
      return false;
    }
  }

  test('to parse and to validate, at the limit of tokens, and its errors are few and short', () => {
    const figures = Object.entries(documents).map(([name, make]) => {
      const text = largestOf(make);
      let errors: readonly GraphQLError[] = [];
      const work = Math.min(...[1, 2, 3].map(() => workOf(() => (errors = check(text)))));
      assert.ok(errors.length <= maxErrors, `${name}: ${errors.length} errors`);
      for (const { message } of errors) assert.ok(message.length < 1_000, message);
      return { name, work, text };
    });
    for (const { name, work, text } of figures.toSorted((a, b) => b.work - a.work)) {
      console.log(`${work.toFixed(1).padStart(6)} ms of work for ${name} (${text.length} characters)`);
      assert.ok(work < 150, `${name} takes ${work} ms`);
    }
  });

  test('and what is merged is counted without going in circles, far below the limit for what clients send', () => {
    assert.ok(countOverlaps(parse(getIntrospectionQuery()), 1e9) < 500);
    const circle = parse(
      '{ ...A ...A job(id: "a") { ...B } } fragment A on Query { ...A } fragment B on Job { project { jobs { nodes { ...B ...B } } } project { jobs { nodes { ...B } } } }',
    );
    assert.ok(Number.isFinite(countOverlaps(circle, 50_000)));
  });

  test('nor does JSON, of many small values or with keys that mean harm', () => {
    for (const piece of ['0,', '[],', '{},', '{"":0},', '{"__proto__":0},', '1e9,']) {
      const text = `[${piece.repeat(1_000_000 / piece.length)}0]`;
      const work = Math.min(...[1, 2, 3].map(() => workOf(() => parseJson(text))));
      console.log(`${work.toFixed(1).padStart(6)} ms of work for a megabyte of ${piece}`);
      assert.ok(work < 250);
    }
    assert.deepEqual(Object.keys(parseJson('{"a":{"__proto__":{"x":1}},"\\u005f_proto__":1}') as object), ['a']);
    assert.equal(({} as { x?: number }).x, undefined);
    assert.equal(parseJson(`${'['.repeat(500_000)}${']'.repeat(500_000)}`), undefined);
  });
});

suite('An answer carries twenty errors at most', () => {
  const errorsOf = (count: number) => Array.from({ length: count }, () => requestError(validateOne()));
  function validateOne(): GraphQLError {
    const [error] = validate(schema, parse('{ nothing }'));
    assert.ok(error);
    return error;
  }
  test('and says how many more there were', () => {
    assert.equal(atMost(errorsOf(20)).length, 20);
    const shown = atMost(errorsOf(1_000));
    assert.equal(shown.length, 20);
    assert.equal(shown.at(-1)?.message, '981 more errors are left out.');
    assert.equal(shown.at(-1)?.extensions['code'], 'BAD_USER_INPUT');
    const stopped = validate(schema, parse(`{ ${many(100, (i) => `nothing${i}`)} }`), specifiedRules, { maxErrors });
    assert.equal(atMost(stopped).length, 20);
    assert.equal(atMost(stopped).at(-1)?.message, 'Checking stopped here, after 20 errors.');
  });
});
