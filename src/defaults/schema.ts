// How people ask for the versioned defaults.
import { requireActor } from '../actor.ts';
import { builder, load } from '../graphql/builder.ts';
import { ActorInterface } from '../graphql/node.ts';
import { loadTokens } from '../project/token.ts';
import { ResolvedValueRef } from '../spec/schema.ts';
import { type Defaults, defaultsValues, getDefaults, listDefaults } from './defaults.ts';

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
    description: 'Every published version of the defaults, oldest first.',
    resolve(_, __, { actor, database }) {
      requireActor(actor);
      return listDefaults(database.db);
    },
  }),
}));
