// Trials in GraphQL: `refusedJobs` names jobs that new rules would refuse, `previewMigration` the
// values that another version of the defaults would change.
import { requireActor } from '../actor.ts';
import { getDefaults } from '../defaults/defaults.ts';
import { requireVersion } from '../defaults/schema.ts';
import { builder } from '../graphql/builder.ts';
import { badInput } from '../graphql/node.ts';
import { JobRef } from '../job/schema.ts';
import { PolicyPayloadRef } from '../policy/schema.ts';
import { JobSpecInput } from '../spec/input-schema.ts';
import { fromInput, shadowedExtras } from '../spec/input.ts';
import { lastJobs, listRefused, type MigrationItem, previewMigration } from './trial.ts';

builder.objectField(PolicyPayloadRef, 'refusedJobs', (t) =>
  t.field({
    type: [JobRef],
    nullable: true,
    description:
      "Jobs among the project's last 100 that these rules would refuse, newest first. Only counted for a dry run.",
    extensions: { listSize: lastJobs },
    resolve: ({ policy, tried }, _, { actor, database }) =>
      tried && listRefused(database.db, requireActor(actor), policy.projectId, tried),
  }),
);

const MigrationItemRef = builder.objectRef<MigrationItem>('MigrationItem').implement({
  description: 'What moving a spec to another version of the defaults would do to one value.',
  fields: (t) => ({
    path: t.expose('path', { type: 'SpecPath', description: 'Path of the value, e.g. `hyperparams.lr_scheduler`.' }),
    before: t.expose('before', {
      type: 'JSON',
      nullable: true,
      description: 'Effective value now; null when it is not known because the older version is not published here.',
    }),
    after: t.expose('after', { type: 'JSON', nullable: true, description: 'Effective value after the move.' }),
    pinned: t.exposeBoolean('pinned', {
      description: 'Indicates the spec sets the value itself, so that the move cannot change it.',
    }),
    changes: t.exposeBoolean('changes', {
      description: 'Indicates the effective value changes, or may change when `before` is not known.',
    }),
  }),
});

const maxVersion = 50;

builder.queryField('previewMigration', (t) =>
  t.field({
    type: [MigrationItemRef],
    description:
      'What moving a spec from one version of the defaults to another would change: run it before an upgrade.',
    args: {
      spec: t.arg({
        type: JobSpecInput,
        required: true,
        description: 'The job. The version that it names itself is not looked at.',
      }),
      from: t.arg.string({
        required: true,
        description:
          'Version the spec relies on now, e.g. `v1.4`. It may be unknown here: then every value that the spec leaves to the defaults is reported.',
      }),
      to: t.arg.string({ description: 'Version to move to; the current one when null.' }),
    },
    async resolve(_, { spec, from, to }, { actor, database: { db } }) {
      const caller = requireActor(actor);
      if (from === '' || from.length > maxVersion) {
        throw badInput(`from takes 1 to ${maxVersion} characters.`, ['from'], { hint: 'Name the version, e.g. v1.4.' });
      }
      const versions = { from: await getDefaults(db, from), to: await requireVersion(db, to ?? null, 'to') };
      const submission = { spec: fromInput(spec), issues: shadowedExtras(spec), at: ['spec'] };
      return previewMigration(db, caller, submission, versions);
    },
  }),
);
