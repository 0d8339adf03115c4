// The contract of all streams, asked of every subscription of the schema that resumes: a new one is
// tested here too.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { getNamedType, isObjectType, isRequiredArgument, parse, subscribe } from 'graphql';
import type { Actor } from '../../src/actor.ts';
import { readConfig } from '../../src/config.ts';
import { Refusal } from '../../src/errors.ts';
import { contextOf } from '../../src/gateway/context.ts';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { ResultBytes } from '../../src/graphql/budget.ts';
import { Feeds } from '../../src/live/feed.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { openStore, type TestStore } from '../support/store.ts';

const maxLast: Record<string, number> = { jobLogs: 10_000, jobMetrics: 1_000, jobEvents: 10_000, jobsUpdated: 100 };
const streams = Object.values(schema.getSubscriptionType()?.getFields() ?? {}).filter(({ args }) =>
  args.some(({ name }) => name === 'after'),
);

let store: TestStore;
let feeds: Feeds;
before(async () => {
  store = await openStore();
  feeds = new Feeds(store.bus);
});
after(async () => {
  feeds.close();
  await store.close();
  await expectNoLeaks();
});

/** The refusal of a stream that is asked with these arguments, and with an id of nothing where one is required. */
async function refusalOf(field: string, args: string, by: Actor | null): Promise<Refusal> {
  const required = streams.find(({ name }) => name === field)?.args.filter(isRequiredArgument) ?? [];
  const argumentList = [...required.map(({ name }) => `${name}: "missing"`), args].join(', ');
  const document = parse(`subscription { ${field}(${argumentList}) { done } }`);
  const config = readConfig({});
  const contextValue = contextOf({ ...store, feeds, config }, by, null, new ResultBytes(config).open('test'));
  const answer = await subscribe({ schema, document, contextValue });
  assert.ok('errors' in answer, `${field} is refused`);
  const cause = answer.errors?.[0]?.originalError;
  assert.ok(cause instanceof Refusal, String(cause));
  return cause;
}

suite('every stream', () => {
  test('is in the table of this test', () => {
    assert.deepEqual(streams.map(({ name }) => name).sort(), Object.keys(maxLast).sort());
  });

  for (const { name, type, extensions } of streams) {
    test(`${name} has batches that say where they end, for all viewers alike`, () => {
      const batch = getNamedType(type);
      assert.ok(isObjectType(batch));
      for (const field of ['endCursor', 'caughtUp', 'done']) assert.ok(batch.getFields()[field], field);
      assert.deepEqual([extensions['viewerNeutral'], batch.extensions['viewerNeutral']], [true, true]);
    });

    test(`${name} takes after or last, and last within its bounds`, async () => {
      const max = maxLast[name] ?? 0;
      for (const [args, message] of [
        ['after: "x", last: 1', 'Pass after or last, not both.'],
        ['last: -1', `last is -1; it goes from 0 to ${max}.`],
        [`last: ${max + 1}`, `last is ${max + 1}; it goes from 0 to ${max}.`],
      ] as const) {
        const refusal = await refusalOf(name, args, store.admin);
        assert.equal(refusal.code, 'BAD_USER_INPUT');
        assert.deepEqual([refusal.message, refusal.details.path], [message, ['last']]);
      }
    });

    test(`${name} asks who is there before anything else`, async () => {
      assert.equal((await refusalOf(name, 'last: -1', null)).code, 'UNAUTHENTICATED');
    });
  }
});
