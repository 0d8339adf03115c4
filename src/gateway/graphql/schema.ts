// The whole GraphQL schema. The imports below add the types of each room to the builder; this file
// adds the facts about the server. `schema.graphql` is printed from it.
import { GraphQLSchema, isInputObjectType, isObjectType, lexicographicSortSchema, printSchema } from 'graphql';
import { getDefaults, listDefaults } from '../../defaults/defaults.ts';
import { builder } from '../../graphql/builder.ts';
import { version } from '../../version.ts';
import '../../graphql/node.ts';
import '../../project/schema.ts';
import '../../project/token-schema.ts';
import '../../project/event-schema.ts';
import '../../defaults/schema.ts';
import '../../policy/schema.ts';
import '../../secret/schema.ts';
import '../../job/schema.ts';
import '../../job/list-schema.ts';
import '../../job/event-schema.ts';
import '../../job/changes-schema.ts';
import '../../submission/schema.ts';
import '../../submission/edit-schema.ts';
import '../../submission/trial-schema.ts';
import '../../runner/schema.ts';
import '../../attempt/schema.ts';
import '../../log/schema.ts';
import '../../metric/schema.ts';
import '../../metric/window-schema.ts';
import '../../metric/stream-schema.ts';
import '../../metric/series-schema.ts';
import '../../schedule/schema.ts';
import '../../schedule/edit-schema.ts';

const description = `AstraML: submit ML training jobs, follow their logs and metrics live.

Conventions: camelCase fields, SCREAMING_SNAKE_CASE enum values, UTC RFC 3339 times, Relay connections,
global ids that any \`node(id:)\` accepts; two objects with one id never differ except by time. Mutations are
named verb-noun (\`submitJob\`), take one \`input\`, and return a union: one \`…Payload\` plus typed errors that all
implement \`UserError\`. In a job spec, null means unset, and no field of a job spec has a default here: defaults are versioned
data. A field that needs more rights than its parent is nullable.

Every stream with an \`after\` argument has one contract: \`after\` resumes after a cursor, \`last: n\` starts n items before
the end, \`last: 0\` is live only; with neither, it starts at the beginning; the first message comes at once; every message has \`endCursor\`,
\`caughtUp\` and \`done\`.

Evolution: additive; what goes is \`@deprecated\` with reason and date for at least two minor versions.

Errors outside of mutation results carry \`extensions.code\`: \`UNAUTHENTICATED\`, \`PERMISSION_DENIED\`, \`NOT_FOUND\`,
\`BAD_USER_INPUT\`, \`CURSOR_INVALID\`, \`CURSOR_WRONG_STREAM\`, \`OPERATION_TOO_LARGE\`, \`IN_PROGRESS\`, \`RATE_LIMITED\`, \`UNAVAILABLE\`,
\`OVERLOADED\`, \`TIMEOUT\`, \`INTERNAL\`;
\`extensions.retryable\` says whether the same request may succeed later.`;

const ServerInfo = builder.objectRef<object>('ServerInfo').implement({
  description: 'Facts about the server, for version checks.',
  fields: (t) => ({
    version: t.string({ description: 'Version of the gateway, e.g. `0.3.1`.', resolve: () => version }),
    defaultsVersion: t.string({
      description: 'Current defaults version.',
      async resolve(_, __, { database }) {
        const current = await getDefaults(database.db, null);
        if (!current) throw new Error('No version of the defaults is current.');
        return current.version;
      },
    }),
    defaultsVersions: t.stringList({
      description: 'All defaults versions a job can ask for, oldest first, by their numbers.',
      resolve: async (_, __, { database }) => (await listDefaults(database.db)).map((defaults) => defaults.version),
    }),
    minCliVersion: t.string({
      description: 'Oldest CLI version that works with this gateway.',
      resolve: () => '0.1.0',
    }),
    time: t.field({
      type: 'DateTime',
      description: 'Time at the server, to find clock skew.',
      resolve: () => new Date(),
    }),
    features: t.stringList({
      description:
        'Features of this gateway, e.g. `secrets`: what a client may rely on, whatever the version. Names are stable.',
      resolve: () => features(),
    }),
    websocketUrl: t.field({
      type: 'URI',
      description: 'WebSocket endpoint for subscriptions.',
      resolve: (_, __, { config }) => `${(config.publicUrl ?? '').replace(/^http/, 'ws')}/graphql`,
    }),
  }),
});

/**
 * Features with the type and field that provide them. A feature is listed only while the schema has
 * its field, so the list cannot claim what is missing.
 */
const featuresOfSchema: Record<string, string> = {
  archiving: 'Project.archivedAt',
  'defaults-publish': 'Mutation.publishDefaults',
  'expected-spec-hash': 'SubmitJobInput.expectedSpecHash',
  'job-events': 'Subscription.jobEvents',
  'jobs-updated': 'Subscription.jobsUpdated',
  'migration-preview': 'Query.previewMigration',
  policies: 'Mutation.setPolicy',
  'policy-dry-run': 'SetPolicyInput.dryRun',
  'project-events': 'Project.events',
  'policy-warnings': 'PolicyRule.enforcement',
  retries: 'JobSpecInput.maxRetries',
  schedules: 'Mutation.createSchedule',
  secrets: 'Mutation.setSecret',
};
/** Features that no field of the schema shows. */
const otherFeatures = ['idempotency', 'rest', 'sse', 'websocket'];

function features(): string[] {
  const shown = Object.entries(featuresOfSchema).filter(([, place]) => {
    const [typeName = '', field = ''] = place.split('.');
    const type = schema.getType(typeName);
    return (isObjectType(type) || isInputObjectType(type)) && Object.hasOwn(type.getFields(), field);
  });
  return [...shown.map(([name]) => name), ...otherFeatures].sort();
}

builder.scalarType('URI', {
  description: 'A URI such as `s3://bucket/dataset`, `hf://org/name`, `file:///data` or `https://…`.',
  serialize: (value) => String(value),
});

builder.queryField('serverInfo', (t) =>
  t.field({ type: ServerInfo, description: 'Facts about the server.', resolve: () => ({}) }),
);

export const schema = new GraphQLSchema({ ...builder.toSchema({ sortSchema: false }).toConfig(), description });

/** The schema in SDL, in a stable order: the content of `schema.graphql`. */
export function printSchemaText(): string {
  return `${printSchema(lexicographicSortSchema(schema))}\n`;
}
