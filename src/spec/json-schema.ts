// The job spec file as a JSON Schema, for completion and checks in editors. It is made from the
// schema that checks submissions, so that both agree; checks across several fields are not in it.
import { z } from 'zod';
import { specShape } from './shape.ts';

/**
 * Returns a JSON Schema (draft 7, which editors know) of a job spec file, including `schedule` of
 * `astraml submit -f`.
 */
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
