// Table `job`, and `job_stream` with the last number of each stream of a job. The row in
// `job_stream` is the job's one lock: a transaction that writes the job, its log, metrics or events
// locks it first, and several of them in the order of their job ids.
import { sql } from 'drizzle-orm';
import { bigint, boolean, check, index, integer, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { changed, instant, now } from '../database/columns.ts';
import { project } from '../project/table.ts';
import type { ResolvedValue } from '../spec/resolve.ts';
import type { EffectiveSpec } from '../spec/shape.ts';
import { type JobState, jobStates, type ReasonCode, terminalStates } from './state.ts';

const quoted = (names: readonly string[]) => sql.raw(names.map((name) => `'${name}'`).join(', '));

/** The newest progress report of the training script. */
export type Progress = {
  step: number | null;
  totalSteps: number | null;
  epoch: number | null;
  totalEpochs: number | null;
  /** Milliseconds since the Unix epoch. */
  time: number;
  /**
   * Samples of the last minute as [time, step], oldest first. The speed is computed from the first
   * and the last of them.
   */
  recent: [number, number][];
};

export const job = pgTable(
  'job',
  {
    id: text().primaryKey(),
    projectId: text()
      .notNull()
      .references(() => project.id),
    /** Number within the project, e.g. 42 of `p-demo/42`. Unique and growing; may skip. */
    number: bigint({ mode: 'number' }).notNull(),
    name: text().notNull(),
    state: text().$type<JobState>().notNull(),
    reasonCode: text().$type<ReasonCode>(),
    reasonMessage: text(),
    reasonHint: text(),
    /** Last log lines of an attempt that failed. */
    logExcerpt: jsonb().$type<string[]>().notNull().default([]),
    model: text().notNull(),
    dataset: text().notNull(),
    /** The submission as it was sent. */
    spec: jsonb().$type<Record<string, unknown>>().notNull(),
    /** The spec with every value filled in, in the shape of the job spec file. */
    effective: jsonb().$type<EffectiveSpec>().notNull(),
    resolved: jsonb().$type<ResolvedValue[]>().notNull(),
    defaultsVersion: text().notNull(),
    /** Revision of the project's policy that the spec was resolved and checked with; 0 for none. */
    policyRevision: integer().notNull().default(0),
    specHash: text().notNull(),
    tags: text().array().notNull(),
    notes: text(),
    priority: integer().notNull(),
    gpus: integer().notNull(),
    timeoutSeconds: integer(),
    /** Backoff before a retry: no runner gets the job before this time of the database's clock. */
    notBefore: instant(),
    /** A job that is still queued at this time becomes TIMED_OUT; null for no limit. */
    queueExpiresAt: instant(),
    /**
     * Ids of runners on which attempts of this job failed the same way too often. They get it again
     * only when no other runner fits.
     */
    leftOut: text().array().notNull().default([]),
    progress: jsonb().$type<Progress>(),
    cancelGraceSeconds: integer(),
    /** Id of the token or schedule that submitted the job. */
    submittedBy: text(),
    /** Id of the finished job that this one retries; null for a first submission. */
    retriedFrom: text(),
    /**
     * Id of the schedule that submitted the job, kept when the schedule is deleted; null for
     * others.
     */
    scheduleId: text(),
    /**
     * Due time for which its schedule submitted the job; null for a job of a trigger or a person.
     */
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
    // At most one job per due time: a second gateway that submits for it gets an error.
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
  /** Number of the newest log line. */
  line: bigint({ mode: 'number' }).notNull().default(0),
  /** Number of the newest event. */
  event: bigint({ mode: 'number' }).notNull().default(0),
  /** Number of the newest change of a metric window. */
  window: bigint({ mode: 'number' }).notNull().default(0),
  /** Counts the changes of the row in `job`. */
  revision: bigint({ mode: 'number' }).notNull().default(0),
  /** Bytes of the log that the database keeps, before compression. */
  logBytes: bigint({ mode: 'number' }).notNull().default(0),
  /**
   * Number of the job's metrics. `metricRefused` is true once a line of the log said that a metric
   * beyond the limit was dropped (metric/append.ts).
   */
  metricNames: integer().notNull().default(0),
  metricRefused: boolean().notNull().default(false),
});
