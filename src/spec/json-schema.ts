// The shape of the job spec file as a JSON Schema, for completion and checks in editors. Made from the schema that checks
// submissions, so it cannot say something else; what only a whole spec can be checked for is not in it.
import { z } from 'zod';
import { specShape } from './shape.ts';

/** JSON Schema (draft 7, which editors know) of a job spec file, `schedule` of `astraml submit -f` included. */
export function jobSpecSchema(): Record<string, unknown> {
  const schedule = z.strictObject({
    cron: z.string(),
    timezone: z.string().optional(),
    name: z.string().optional(),
    on_overlap: z.enum(['ALLOW', 'FORBID', 'REPLACE', 'allow', 'forbid', 'replace']).optional(),
    starting_deadline_seconds: z.int().optional(),
  });
  const file = z.strictObject({ ...specShape, schedule: schedule.optional() });
  return { ...z.toJSONSchema(file, { target: 'draft-7', io: 'input' }), title: 'AstraML job spec' };
}
