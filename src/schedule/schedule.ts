// Schedules: a template of a job and when to submit it. What happens at a due time stands in due.ts; here is what people
// do with schedules.
import { and, asc, desc, eq, not, sql } from 'drizzle-orm';
import { type Actor, canSee, requireScope, withIncluded } from '../actor.ts';
import { now as databaseNow } from '../database/columns.ts';
import { databaseErrorCode, type Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import { invalid, type Issue, notFound, quote, Refusal } from '../errors.ts';
import { type EventType, recordEvent } from '../event/event.ts';
import { newId } from '../id.ts';
import { type Job } from '../job/job.ts';
import { randomName } from '../job/name.ts';
import { terminalStates } from '../job/state.ts';
import { job } from '../job/table.ts';
import type { Store, Tx } from '../live/commit.ts';
import { getProject, requireActive } from '../project/project.ts';
import { takeKey } from '../replay/replay.ts';
import { findCredentials } from '../spec/credential.ts';
import { atInput, snakeKeys } from '../spec/input.ts';
import { unkeepable } from '../spec/spec.ts';
import { planJob, projectOf, type Template } from '../submission/plan.ts';
import { keyOf, submit, type Submitted } from '../submission/submit.ts';
import { calendarIssues, openCalendar } from './calendar.ts';
import { passOver } from './run.ts';
import { type OverlapPolicy, schedule } from './table.ts';

export type Schedule = typeof schedule.$inferSelect;

export type ScheduleSettings = {
  cron: string;
  timezone: string;
  name: string;
  onOverlap: OverlapPolicy;
  startingDeadlineSeconds: number;
};

export type NewSchedule = Omit<ScheduleSettings, 'name'> & {
  /** A generated one when null. */
  name: string | null;
  spec: Record<string, unknown>;
  /** Problems found where the spec was read. */
  issues: Issue[];
  idempotencyKey: string | null;
};

/** Unset fields stay as they are. */
export type ScheduleChange = Partial<ScheduleSettings> & {
  id: string;
  spec?: Record<string, unknown>;
  issues?: Issue[];
  paused?: boolean;
};

const deadlineRange = { min: 10, max: 604_800 };
const at = ['input'];
const atSpec = [...at, 'spec'];

/**
 * Creates a schedule. Its first due time is the first one from now on. Throws what `submitJob` would throw for the
 * template now, and INVALID_INPUT with every problem of both, ALREADY_EXISTS for a name in use. `now` is for tests; it
 * is the database's clock.
 */
export async function createSchedule(
  tx: Tx,
  actor: Actor,
  { idempotencyKey, spec, issues: specIssues, ...input }: NewSchedule,
  now?: Date,
): Promise<{ schedule: Schedule; replayed: boolean }> {
  const projectId = projectOf(spec);
  requireScope(actor, projectId, 'WRITE', [...atSpec, 'projectId']);
  const id = newId('sch');
  const open = unkeepable(spec).map((issue) => atInput(issue, atSpec)); // before the key's row holds it
  open.push(...findCredentials(input.name, [...at, 'name']));
  if (open.length > 0) throw invalid(open);
  if (idempotencyKey !== null) {
    const keyed = { scope: projectId, mutation: 'createSchedule', key: idempotencyKey, objectId: id };
    const known = await takeKey(tx, { ...keyed, input: { ...snakeKeys(input), spec } });
    if (known) return { schedule: await requireSchedule(tx, actor, known), replayed: true };
  }
  const clock = now ?? (await readClock(tx));
  const settings = { ...input, name: input.name ?? randomName() };
  const defaultsVersion = await requireTemplate(tx, actor, {
    spec,
    issues: specIssues,
    settings: settingIssues(settings, clock),
  });
  const values = { ...settings, id, projectId, spec, defaultsVersion, createdBy: actor.tokenId };
  const nextDueAt = openCalendar(settings).after(clock);
  const [created] = await tx
    .insert(schedule)
    .values({ ...values, nextDueAt })
    .onConflictDoNothing()
    .returning();
  if (!created) throw await nameTaken(tx, projectId, settings.name);
  await recordChange(tx, actor, created, 'SCHEDULE_CREATED', 'created');
  return { schedule: created, replayed: false };
}

/**
 * Changes a schedule; jobs that it started are not affected. Due times that a pause or a change of the calendar left out
 * are recorded as skipped; the next one is the first from now on.
 */
export async function updateSchedule(tx: Tx, actor: Actor, change: ScheduleChange, now?: Date): Promise<Schedule> {
  const row = await lockSchedule(tx, actor, change.id);
  const clock = now ?? (await readClock(tx));
  const { id: _, spec, issues = [], paused, ...changed } = change;
  const settings: ScheduleSettings = { ...settingsOf(row), ...changed };
  const wrong = settingIssues(settings, clock);
  let defaultsVersion = row.defaultsVersion;
  if (spec) {
    if (spec['project_id'] !== row.projectId) wrong.push(otherProject(row));
    defaultsVersion = await requireTemplate(tx, actor, {
      spec: { ...spec, project_id: row.projectId },
      issues,
      settings: wrong,
      template: { defaultsVersion },
    });
  } else if (wrong.length > 0) throw invalid(wrong);

  const isPaused = paused ?? row.pausedAt !== null;
  const isResumed = row.pausedAt !== null && !isPaused;
  const isMoved = settings.cron !== row.cron || settings.timezone !== row.timezone;
  if (isResumed) await passOver(tx, row, clock, { code: 'PAUSED', message: 'The schedule was paused.' });
  else if (isMoved) await passOver(tx, row, clock, { code: 'CHANGED', message: 'The schedule was changed.' });
  const next = isResumed || isMoved ? { nextDueAt: openCalendar(settings).after(clock) } : {};
  const pausedAt = isPaused ? (row.pausedAt ?? clock) : null;
  const values = { ...settings, ...next, pausedAt, defaultsVersion, ...(spec ? { spec } : {}) };
  if (isSame(row, values)) return row;
  const [written] = await tx
    .update(schedule)
    .set({ ...values, updatedAt: databaseNow })
    .where(eq(schedule.id, row.id))
    .returning()
    .catch(async (error: unknown) => {
      // The statement ended the transaction: what has the name cannot be looked up in it any more.
      throw databaseErrorCode(error) === '23505' ? alreadyExists(settings.name) : error;
    });
  if (!written) throw new Error('An update returned no row.');
  const done = isResumed ? 'resumed' : isPaused && row.pausedAt === null ? 'paused' : 'changed';
  await recordChange(tx, actor, written, 'SCHEDULE_UPDATED', done);
  return written;
}

/** Deletes a schedule and the record of its due times; its jobs stay. */
export async function deleteSchedule(tx: Tx, actor: Actor, id: string): Promise<void> {
  const row = await lockSchedule(tx, actor, id);
  await tx.delete(schedule).where(eq(schedule.id, row.id));
  await recordChange(tx, actor, row, 'SCHEDULE_DELETED', 'deleted');
}

/** Submits a job from the template now, also while the schedule is paused and whatever it does about overlaps. */
export async function triggerSchedule(
  store: Store,
  actor: Actor,
  { id, idempotencyKey }: { id: string; idempotencyKey: string | null },
): Promise<Submitted & { schedule: Schedule }> {
  const row = await requireSchedule(store.database.db, actor, id, 'WRITE');
  const template = { scheduleId: row.id, defaultsVersion: row.defaultsVersion, dueAt: null };
  const key = keyOf('triggerSchedule', idempotencyKey, { id });
  return { schedule: row, ...(await submit(store, actor, { spec: row.spec, at, template }, key)) };
}

/** The schedule as who submits: it may do so in its own project only. */
export function actorOf(row: Schedule): Actor {
  const name = `schedule ${row.name}`;
  return {
    tokenId: row.id,
    name,
    projectId: row.projectId,
    runnerProjectIds: null,
    scopes: withIncluded(['WRITE']),
    expiresAt: null,
  };
}

/** The schedule, or null when there is none or the actor may not see it. */
export async function getSchedule(db: Db, actor: Actor, id: string): Promise<Schedule | null> {
  if (id.includes('\0')) return null;
  const [found] = await db.select().from(schedule).where(eq(schedule.id, id));
  return found && canSee(actor, found.projectId) ? found : null;
}

/** Throws NOT_FOUND for a schedule that the actor may not see, PERMISSION_DENIED without the scope. */
export async function requireSchedule(
  db: Db,
  actor: Actor,
  id: string,
  scope: 'READ' | 'WRITE' = 'READ',
): Promise<Schedule> {
  const found = await getSchedule(db, actor, id);
  if (!found) throw notFound('Schedule', id, [...at, 'id']);
  requireScope(actor, found.projectId, scope, [...at, 'id']);
  return found;
}

/** Schedules by id, for callers who may see them. */
export async function loadSchedules(db: Db, ids: readonly string[]): Promise<Map<string, Schedule>> {
  const rows = await db.select().from(schedule).where(isOneOf(schedule.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}

export type PageOptions = { limit: number; backward: boolean; after?: readonly unknown[]; before?: readonly unknown[] };

/** Schedules of a project by name, one more than the limit. */
export async function listSchedules(db: Db, projectId: string, page: PageOptions): Promise<Schedule[]> {
  const order = keyset([schedule.name], { ...page, descending: false });
  const rows = await db
    .select()
    .from(schedule)
    .where(and(eq(schedule.projectId, projectId), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

export function countSchedules(db: Db, projectId: string): Promise<number> {
  return db.$count(schedule, eq(schedule.projectId, projectId));
}

/** Newest jobs of schedules, by schedule. */
export async function loadLastJobs(db: Db, scheduleIds: readonly string[]): Promise<Map<string, Job>> {
  const rows = await db
    .selectDistinctOn([job.scheduleId])
    .from(job)
    .where(isOneOf(job.scheduleId, scheduleIds))
    .orderBy(asc(job.scheduleId), desc(job.createdAt), desc(job.id));
  return new Map(rows.flatMap((row) => (row.scheduleId === null ? [] : [[row.scheduleId, row]])));
}

/** Jobs of a schedule that have not ended, in order of their ids. */
export async function listActiveJobs(db: Db, scheduleId: string): Promise<Job[]> {
  return db
    .select()
    .from(job)
    .where(and(eq(job.scheduleId, scheduleId), not(isOneOf(job.state, terminalStates))))
    .orderBy(asc(job.id));
}

/** The database's clock, the only one that says what is due. */
export async function readClock(db: Db): Promise<Date> {
  const ms = sql<number>`floor(extract(epoch from ${databaseNow}) * 1000)::double precision`;
  const [row] = await db.select({ ms }).from(sql`(select 1) as one`);
  if (!row) throw new Error('The database told no time.');
  return new Date(row.ms);
}

async function lockSchedule(tx: Tx, actor: Actor, id: string): Promise<Schedule> {
  await requireSchedule(tx, actor, id, 'WRITE');
  const [row] = await tx.select().from(schedule).where(eq(schedule.id, id)).for('update');
  const project = row && (await getProject(tx, actor, row.projectId));
  if (!project) throw notFound('Schedule', id, [...at, 'id']); // deleted since
  requireActive(project, [...at, 'id']);
  return row;
}

/** Version of the defaults that the template resolves with. Throws what submitting it now would throw, and `settings`. */
async function requireTemplate(
  tx: Tx,
  actor: Actor,
  draft: {
    spec: Record<string, unknown>;
    issues: Issue[];
    settings: Issue[];
    template?: Pick<Template, 'defaultsVersion'>;
  },
): Promise<string> {
  const { spec, issues, settings, template } = draft;
  const plan = await planJob(tx, actor, { spec, issues, at: atSpec, ...(template ? { template } : {}) });
  if (plan.ready && settings.length === 0) return plan.defaults.version;
  const ofSpec = plan.ready ? [] : (plan.refusal.details.issues ?? []);
  if (settings.length > 0 || ofSpec.length > 0) throw invalid([...settings, ...ofSpec]);
  throw plan.ready ? new Error('A plan that is ready was refused.') : plan.refusal;
}

function settingIssues(settings: ScheduleSettings, clock: Date): Issue[] {
  const issues = calendarIssues(settings, at, clock);
  const { name, startingDeadlineSeconds: deadline } = settings;
  if (name.length < 1 || name.length > 100 || name.includes('\0') || !name.isWellFormed()) {
    issues.push({
      code: 'OUT_OF_RANGE',
      path: [...at, 'name'],
      specPath: 'schedule.name',
      message: 'name takes 1 to 100 characters.',
    });
  }
  issues.push(...findCredentials(name, [...at, 'name']));
  const { min, max } = deadlineRange;
  if (deadline < min || deadline > max) {
    const message = `startingDeadlineSeconds goes from ${min} to ${max}.`;
    issues.push({
      code: 'OUT_OF_RANGE',
      path: [...at, 'startingDeadlineSeconds'],
      specPath: 'schedule.starting_deadline_seconds',
      message,
    });
  }
  return issues;
}

function otherProject(row: Schedule): Issue {
  const message = `projectId must be ${row.projectId}: a schedule stays in its project.`;
  return { code: 'NOT_ALLOWED', path: [...atSpec, 'projectId'], specPath: 'project_id', message };
}

function settingsOf(row: Schedule): ScheduleSettings {
  const { cron, timezone, name, onOverlap, startingDeadlineSeconds } = row;
  return { cron, timezone, name, onOverlap, startingDeadlineSeconds };
}

function isSame(row: Schedule, values: Partial<Schedule>): boolean {
  const plain = (value: unknown) => JSON.stringify(value ?? null);
  return Object.entries(values).every(([key, value]) => plain(row[key as keyof Schedule]) === plain(value));
}

function alreadyExists(name: string, existingId?: string): Refusal {
  return new Refusal('ALREADY_EXISTS', `The project has a schedule ${quote(name)} already.`, {
    path: [...at, 'name'],
    hint: 'Use another name, or change that schedule with updateSchedule.',
    existingId,
  });
}

async function nameTaken(tx: Tx, projectId: string, name: string): Promise<Refusal> {
  const [existing] = await tx
    .select({ id: schedule.id })
    .from(schedule)
    .where(and(eq(schedule.projectId, projectId), eq(schedule.name, name)));
  return alreadyExists(name, existing?.id);
}

async function recordChange(tx: Tx, actor: Actor, row: Schedule, type: EventType, done: string): Promise<void> {
  const message = `Schedule ${row.name} was ${done}.`;
  const data = { scheduleId: row.id, cron: row.cron, timezone: row.timezone };
  await recordEvent(tx, { type, projectId: row.projectId, actorId: actor.tokenId, message, data });
}
