// Table `job_number`: the next job number of each project.
import { bigint, pgTable, text } from 'drizzle-orm/pg-core';
import { project } from '../project/table.ts';

/**
 * `next` is the first number that no gateway took. Gateways take numbers in blocks, outside of the
 * transaction of the job.
 */
export const jobNumber = pgTable('job_number', {
  projectId: text()
    .primaryKey()
    .references(() => project.id),
  next: bigint({ mode: 'number' }).notNull(),
});
