// Jobs, and `job_stream`: the one lock of a job, with the last number given in each of its streams. Whoever changes a
// job or what belongs to it locks that row first, several in order of job id.
import { sql } from 'drizzle-orm';
import { bigint, boolean, check, index, integer, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { changed, instant, now } from '../database/columns.ts';
import { project } from '../project/table.ts';
import type { ResolvedValue } from '../spec/resolve.ts';
import type { EffectiveSpec } from '../spec/shape.ts';
import { type JobState, jobStates, type ReasonCode, terminalStates } from './state.ts';

const quoted = (names: readonly string[]) => sql.raw(names.map((name) => `'${name}'`).join(', '));

/** What the script reported last. */
export type Progress = {
  step: number | null;
  totalSteps: number | null;
  epoch: number | null;
  totalEpochs: number | null;
  /** Milliseconds since the Unix epoch. */
  time: number;
  /** Some reports of the last minute, [time, step], oldest first: what the speed is computed from. */
  recent: [number, number][];
};

export const job = pgTable(
  'job',
  {
    id: text().primaryKey(),
    projectId: text()
      .notNull()
      .references(() => project.id),
    /** Number within the project; unique and growing, may skip. */
    number: bigint({ mode: 'number' }).notNull(),
    name: text().notNull(),
    state: text().$type<JobState>().notNull(),
    reasonCode: text().$type<ReasonCode>(),
    reasonMessage: text(),
    reasonHint: text(),
    /** Last lines of the log before a failure. */
    logExcerpt: jsonb().$type<string[]>().notNull().default([]),
    model: text().notNull(),
    dataset: text().notNull(),
    /** The submission as it was sent. */
    spec: jsonb().$type<Record<string, unknown>>().notNull(),
    /** The spec with every value filled in, in the shape of the job spec file. */
    effective: jsonb().$type<EffectiveSpec>().notNull(),
    resolved: jsonb().$type<ResolvedValue[]>().notNull(),
    defaultsVersion: text().notNull(),
    /** Revision of the project's policy that it was resolved with; 0 for the empty one. */
    policyRevision: integer().notNull().default(0),
    specHash: text().notNull(),
    tags: text().array().notNull(),
    notes: text(),
    priority: integer().notNull(),
    gpus: integer().notNull(),
    timeoutSeconds: integer(),
    /** Backoff: no runner gets the job before this moment of the database's clock. */
    notBefore: instant(),
    /** A queued job is given up at this moment; null for no limit. */
    queueExpiresAt: instant(),
    /** Runners on which it failed the same way too often: it goes elsewhere while another matches. */
    leftOut: text().array().notNull().default([]),
    progress: jsonb().$type<Progress>(),
    cancelGraceSeconds: integer(),
    /** Token or schedule that submitted it. */
    submittedBy: text(),
    /** The finished job that it repeats. */
    retriedFrom: text(),
    /** Schedule whose template it is; kept when the schedule is deleted. Null for any other job. */
    scheduleId: text(),
    /** Due time of its schedule that it was started for; null for a job that nobody's calendar asked for. */
    dueAt: instant(),
    createdAt: instant().notNull().default(now),
    startedAt: instant(),
    finishedAt: instant(),
    updatedAt: instant().notNull().default(now),
    changed: changed(),
  },
  (table) => [
    check('job_state', sql`${table.state} in (${quoted(jobStates)})`),
    check('job_finished', sql`(${table.finishedAt} is not null) = (${table.state} in (${quoted(terminalStates)}))`),
    uniqueIndex('job_project_number').on(table.projectId, table.number),
    // A due time starts one job at most, however many gateways try.
    uniqueIndex('job_schedule_due').on(table.scheduleId, table.dueAt),
    index('job_schedule_created')
      .on(table.scheduleId, table.createdAt, table.id)
      .where(sql`${table.scheduleId} is not null`),
    index('job_created').on(table.createdAt, table.id),
    index('job_updated').on(table.updatedAt, table.id),
    index('job_changed').on(table.changed, table.id),
    index('job_finished')
      .on(table.finishedAt, table.id)
      .where(sql`${table.finishedAt} is not null`),
    index('job_project_created').on(table.projectId, table.createdAt, table.id),
    index('job_queued')
      .on(table.priority, table.createdAt, table.id)
      .where(sql`${table.state} = 'QUEUED'`),
    index('job_queue_expires')
      .on(table.queueExpiresAt)
      .where(sql`${table.state} = 'QUEUED'`),
    index('job_not_before')
      .on(table.notBefore)
      .where(sql`${table.state} = 'QUEUED' and ${table.notBefore} is not null`),
  ],
);

export const jobStream = pgTable('job_stream', {
  jobId: text()
    .primaryKey()
    .references(() => job.id),
  /** Last number given to a log line. */
  line: bigint({ mode: 'number' }).notNull().default(0),
  /** Last number given to an event. */
  event: bigint({ mode: 'number' }).notNull().default(0),
  /** Last number given to a change of a metric window. */
  window: bigint({ mode: 'number' }).notNull().default(0),
  /** Number of changes of the job's own row. */
  revision: bigint({ mode: 'number' }).notNull().default(0),
  /** Bytes of the log that are kept. */
  logBytes: bigint({ mode: 'number' }).notNull().default(0),
  /** Names of metrics that are kept, and whether the log names one that is not: see metric/append.ts. */
  metricNames: integer().notNull().default(0),
  metricRefused: boolean().notNull().default(false),
});
