// What a revoked token leaves behind: its schedules, which act for themselves and go on.
import { builder } from '../graphql/builder.ts';
import { DeletePayloadRef } from '../graphql/mutation.ts';
import { idPrefix } from '../id.ts';
import { listSchedulesOf } from './owner.ts';
import { ScheduleRef } from './schema.ts';

builder.objectField(DeletePayloadRef, 'schedules', (t) =>
  t.field({
    type: [ScheduleRef],
    description:
      'Schedules that the revoked token created, at most 100: they go on submitting jobs until they are paused or deleted. Empty for what is no token.',
    resolve: ({ deletedId }, _, { actor, database }) =>
      actor && idPrefix(deletedId) === 'tok' ? listSchedulesOf(database.db, actor, deletedId) : [],
  }),
);
