// Numbers of jobs: what was handed out last in each project.
import { bigint, pgTable, text } from 'drizzle-orm/pg-core';
import { project } from '../project/table.ts';

/** The next number that is free in a project. Gateways take numbers in blocks, outside of the job's transaction. */
export const jobNumber = pgTable('job_number', {
  projectId: text()
    .primaryKey()
    .references(() => project.id),
  next: bigint({ mode: 'number' }).notNull(),
});
