// GraphQL: set, delete and list secrets. No field here returns a value.
import { requireActor } from '../actor.ts';
import { builder } from '../graphql/builder.ts';
import {
  addMutation,
  deletion,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  ValidationError,
} from '../graphql/mutation.ts';
import { NodeInterface, registerNode } from '../graphql/node.ts';
import { commit } from '../live/commit.ts';
import { ProjectRef } from '../project/schema.ts';
import { WarningRef } from '../spec/schema.ts';
import type { Warning } from '../spec/spec.ts';
import {
  deleteSecret,
  getSecretById,
  listSecrets,
  maySeeSecrets,
  type Secret,
  secretWarnings,
  setSecret,
} from './secret.ts';

const SecretRef = builder.objectRef<Secret>('Secret');

registerNode('sec', 'Secret', ({ database }, actor, id) => getSecretById(database.db, actor, id));

SecretRef.implement({
  description: 'A secret of a project. The value cannot be read back.',
  interfaces: [NodeInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id of the secret.' }),
    name: t.exposeString('name', { description: 'Name of the secret, e.g. `HF_TOKEN`.' }),
    version: t.exposeInt('version', { description: 'Version; grows by one each time the value is set.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'Timestamp of when the secret was created.' }),
    updatedAt: t.expose('updatedAt', { type: 'DateTime', description: 'Timestamp of when the value was last set.' }),
    lastUsedAt: t.expose('lastUsedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when a job last received the value; null for never.',
    }),
  }),
});

builder.objectField(ProjectRef, 'secrets', (t) =>
  t.field({
    type: [SecretRef],
    nullable: true,
    description:
      'Secrets of the project, by name. Values can be written, never read. Null unless the caller may submit jobs.',
    resolve: (project, _, { actor, database }) =>
      actor && maySeeSecrets(actor, project.id) ? listSecrets(database.db, project.id) : null,
  }),
);

addMutation('setSecret', {
  description: 'Creates a secret or sets a new value.',
  inputDescription: 'The secret.',
  input: builder.inputType('SetSecretInput', {
    description: 'Input of `setSecret`.',
    fields: (t) => ({
      projectId: t.id({ required: true, description: 'Id of the project.' }),
      name: t.string({ required: true, description: 'Name: upper-case letters, digits and underscores.' }),
      value: t.string({
        required: true,
        description: 'Value, at most 64 KiB. It is encrypted at rest and never returned.',
      }),
    }),
  }),
  payload: builder.objectRef<{ secret: Secret; warnings: Warning[] }>('SecretPayload').implement({
    description: 'Success of `setSecret`.',
    fields: (t) => ({
      secret: t.expose('secret', { type: SecretRef, description: 'The secret, without its value.' }),
      warnings: t.expose('warnings', {
        type: [WarningRef],
        description:
          'Advice that does not block: `SECRET_TOO_SHORT` for a value that runners cannot mask in an output.',
      }),
    }),
  }),
  result: 'SecretResult',
  errors: [ValidationError, NotFoundError, PermissionError, InvalidStateError],
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    const secret = await commit(context, (tx) => setSecret(tx, actor, input, context.config.secretKeys));
    return { secret, warnings: secretWarnings(input) };
  },
});

addMutation('deleteSecret', {
  ...deletion,
  description: 'Deletes a secret. Jobs that still refer to it fail to start.',
  inputDescription: 'Which secret.',
  input: builder.inputType('DeleteSecretInput', {
    description: 'Input of `deleteSecret`.',
    fields: (t) => ({
      projectId: t.id({ required: true, description: 'Id of the project.' }),
      name: t.string({ required: true, description: 'Name of the secret.' }),
    }),
  }),
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    return { deletedId: await commit(context, (tx) => deleteSecret(tx, actor, input)) };
  },
});
