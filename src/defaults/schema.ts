// The versioned defaults in GraphQL.
import { requireActor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { builder, load } from '../graphql/builder.ts';
import {
  addMutation,
  AlreadyExistsError,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  ValidationError,
} from '../graphql/mutation.ts';
import { ActorInterface, badInput } from '../graphql/node.ts';
import { commit } from '../live/commit.ts';
import { loadTokens } from '../project/token.ts';
import { ResolvedValueRef } from '../spec/schema.ts';
import {
  type Defaults,
  type DefaultsChange,
  defaultsValues,
  diffDefaults,
  getDefaults,
  listDefaults,
  publishDefaults,
  setCurrentDefaults,
  versionHint,
} from './defaults.ts';

export const DefaultsRef = builder.objectRef<Defaults>('Defaults').implement({
  description:
    "A published version of the platform's defaults. Immutable: the same version always holds the same values.",
  fields: (t) => ({
    version: t.exposeString('version', { description: 'Version, e.g. `v2.1`.' }),
    values: t.field({
      type: [ResolvedValueRef],
      description: 'Values by path, ordered by path.',
      resolve: (defaults) => defaultsValues(defaults),
    }),
    hash: t.exposeString('hash', { description: 'SHA-256 of the canonical values.' }),
    publishedAt: t.expose('publishedAt', { type: 'DateTime', description: 'Timestamp of publication.' }),
    notes: t.exposeString('notes', {
      nullable: true,
      description: 'Notes for people who migrate, in Markdown; null for none.',
    }),
    isCurrent: t.exposeBoolean('isCurrent', {
      description: 'Indicates that specs which name no version get this one.',
    }),
    publishedBy: t.field({
      type: ActorInterface,
      nullable: true,
      description: 'Who published it; null for the versions that come with the software.',
      resolve: (defaults, _, context) =>
        defaults.publishedBy ? load(context, loadTokens, defaults.publishedBy) : null,
    }),
  }),
});

const DefaultsChangeRef = builder.objectRef<DefaultsChange>('DefaultsChange').implement({
  description: 'A value that differs between two versions of the defaults.',
  fields: (t) => ({
    path: t.expose('path', { type: 'SpecPath', description: 'Path of the value.' }),
    from: t.expose('from', {
      type: 'JSON',
      nullable: true,
      description: 'Value in the older version; null when it had none.',
    }),
    to: t.expose('to', {
      type: 'JSON',
      nullable: true,
      description: 'Value in the newer version; null when it has none.',
    }),
  }),
});

/**
 * Returns a version of the defaults, the current one for null. Throws BAD_USER_INPUT for a version
 * that is not published; `argument` is the name of the argument for the error.
 */
export async function requireVersion(db: Db, version: string | null, argument: string): Promise<Defaults> {
  const defaults = await getDefaults(db, version);
  if (defaults) return defaults;
  const hint = versionHint(version ?? '', await listDefaults(db));
  throw badInput(`${argument} is not a published version of the defaults.`, [argument], { hint });
}

builder.queryFields((t) => ({
  defaults: t.field({
    type: DefaultsRef,
    nullable: true,
    description: 'Defaults of a version; null when it is not published.',
    args: { version: t.arg.string({ description: 'Defaults version, e.g. `v2.1`; the current one when null.' }) },
    resolve(_, { version }, { actor, database }) {
      requireActor(actor);
      return getDefaults(database.db, version ?? null);
    },
  }),
  defaultsVersions: t.field({
    type: [DefaultsRef],
    description: 'Every published version of the defaults, oldest first, by their numbers.',
    resolve(_, __, { actor, database }) {
      requireActor(actor);
      return listDefaults(database.db);
    },
  }),
  defaultsDiff: t.field({
    type: [DefaultsChangeRef],
    description: 'What differs between two published versions of the defaults.',
    args: {
      from: t.arg.string({ required: true, description: 'Older version.' }),
      to: t.arg.string({ required: true, description: 'Newer version.' }),
    },
    async resolve(_, { from, to }, { actor, database: { db } }) {
      requireActor(actor);
      return diffDefaults(await requireVersion(db, from, 'from'), await requireVersion(db, to, 'to'));
    },
  }),
}));

addMutation('publishDefaults', {
  description:
    "Publishes a new version of the platform's defaults. A published version can never be changed; to publish the same again changes nothing and succeeds. Needs a platform administrator.",
  inputDescription: 'The version.',
  input: builder.inputType('PublishDefaultsInput', {
    description: 'Input of `publishDefaults`.',
    fields: (t) => ({
      version: t.string({ required: true, description: 'Version, e.g. `v2.2`.' }),
      values: t.field({
        type: 'JSONObject',
        required: true,
        description:
          'Values by path, as in a spec file: `{ "hyperparams": { "batch_size": 32 } }`. A version gives a value to every path that v2.1 has.',
      }),
      notes: t.string({ description: 'Notes for people who migrate, in Markdown.' }),
      makeCurrent: t.boolean({
        defaultValue: false,
        description: 'Makes the version the current one. Publishing alone changes nothing for anybody.',
      }),
    }),
  }),
  payload: builder.objectRef<{ defaults: Defaults }>('PublishDefaultsPayload').implement({
    description: 'Success of `publishDefaults`.',
    fields: (t) => ({ defaults: t.expose('defaults', { type: DefaultsRef, description: 'The version.' }) }),
  }),
  errors: [ValidationError, PermissionError, AlreadyExistsError],
  async resolve({ version, values, notes, makeCurrent }, context) {
    const actor = requireActor(context.actor);
    const input = { version, values, notes: notes ?? null, makeCurrent: makeCurrent ?? false };
    return { defaults: await commit(context, (tx) => publishDefaults(tx, actor, input)) };
  },
});

addMutation('setCurrentDefaults', {
  description:
    'Makes a published version of the defaults the one that specs without a version get, from now on: also an older one, to go back. Jobs that were submitted keep theirs. Needs a platform administrator.',
  inputDescription: 'Which version.',
  input: builder.inputType('SetCurrentDefaultsInput', {
    description: 'Input of `setCurrentDefaults`.',
    fields: (t) => ({ version: t.string({ required: true, description: 'Version, e.g. `v2.2`.' }) }),
  }),
  payload: builder.objectRef<{ defaults: Defaults }>('SetCurrentDefaultsPayload').implement({
    description: 'Success of `setCurrentDefaults`.',
    fields: (t) => ({ defaults: t.expose('defaults', { type: DefaultsRef, description: 'The version.' }) }),
  }),
  errors: [NotFoundError, PermissionError, InvalidStateError],
  async resolve({ version }, context) {
    const actor = requireActor(context.actor);
    return { defaults: await commit(context, (tx) => setCurrentDefaults(tx, actor, version)) };
  },
});
