// Creates, changes, deletes and triggers schedules.
import { and, eq } from 'drizzle-orm';
import { type Actor, requireScope } from '../actor.ts';
import { now as databaseNow } from '../database/columns.ts';
import { databaseErrorCode } from '../database/database.ts';
import { invalid, type Issue, notFound, quote, Refusal } from '../errors.ts';
import { type EventType, recordEvent } from '../event/event.ts';
import { newId } from '../id.ts';
import { randomName } from '../job/name.ts';
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
import { readClock, requireSchedule, type Schedule, type ScheduleSettings } from './schedule.ts';
import { schedule } from './table.ts';

export type NewSchedule = Omit<ScheduleSettings, 'name'> & {
  /** Null for a generated name. */
  name: string | null;
  spec: Record<string, unknown>;
  /** Problems that the caller found while it read the spec. */
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

const inputPath = ['input'];
const deadlineRange = { min: 10, max: 604_800 };
const templatePath = [...inputPath, 'spec'];

/**
 * Creates a schedule; its first due time lies after `now`. Throws what `submitJob` would throw for
 * the template now, INVALID_INPUT with all problems of settings and template, and ALREADY_EXISTS
 * for a name in use. Tests set `now`; the database's clock when absent.
 */
export async function createSchedule(
  tx: Tx,
  actor: Actor,
  { idempotencyKey, spec, issues: templateIssues, ...input }: NewSchedule,
  now?: Date,
): Promise<{ schedule: Schedule; replayed: boolean }> {
  const projectId = projectOf(spec);
  requireScope(actor, projectId, 'WRITE', [...templatePath, 'projectId']);
  const id = newId('sch');
  // checked before `takeKey` stores the input
  const open = unkeepable(spec).map((issue) => atInput(issue, templatePath));
  open.push(...findCredentials(input.name, [...inputPath, 'name']));
  if (open.length > 0) throw invalid(open);
  if (idempotencyKey !== null) {
    const keyed = { scope: projectId, mutation: 'createSchedule', key: idempotencyKey, objectId: id };
    const earlierId = await takeKey(tx, { ...keyed, input: { ...snakeKeys(input), spec } });
    if (earlierId) return { schedule: await requireSchedule(tx, actor, earlierId), replayed: true };
  }
  const clock = now ?? (await readClock(tx));
  const settings = { ...input, name: input.name ?? randomName() };
  const defaultsVersion = await requireTemplate(tx, actor, {
    spec,
    issues: templateIssues,
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
 * Changes a schedule; its earlier jobs are not affected. After a pause or a change of its cron or
 * time zone, due times that passed are recorded as skipped, and the next due time lies after `now`.
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
      // The failed statement ended the transaction, so the id of the other schedule cannot be read
      // in it.
      throw databaseErrorCode(error) === '23505' ? alreadyExists(settings.name) : error;
    });
  if (!written) throw new Error('An update returned no row.');
  const done = isResumed ? 'resumed' : isPaused && row.pausedAt === null ? 'paused' : 'changed';
  await recordChange(tx, actor, written, 'SCHEDULE_UPDATED', done);
  return written;
}

/** Deletes a schedule and the decisions on its due times; its jobs stay. */
export async function deleteSchedule(tx: Tx, actor: Actor, id: string): Promise<void> {
  const row = await lockSchedule(tx, actor, id);
  await tx.delete(schedule).where(eq(schedule.id, row.id));
  await recordChange(tx, actor, row, 'SCHEDULE_DELETED', 'deleted');
}

/**
 * Submits a job from the template now, also while the schedule is paused, and whatever `onOverlap`
 * says.
 */
export async function triggerSchedule(
  store: Store,
  actor: Actor,
  { id, idempotencyKey }: { id: string; idempotencyKey: string | null },
): Promise<Submitted & { schedule: Schedule }> {
  const row = await requireSchedule(store.database.db, actor, id, 'WRITE');
  const template = { scheduleId: row.id, defaultsVersion: row.defaultsVersion, dueAt: null };
  const key = keyOf('triggerSchedule', idempotencyKey, { id });
  return { schedule: row, ...(await submit(store, actor, { spec: row.spec, at: inputPath, template }, key)) };
}

async function lockSchedule(tx: Tx, actor: Actor, id: string): Promise<Schedule> {
  await requireSchedule(tx, actor, id, 'WRITE');
  const [row] = await tx.select().from(schedule).where(eq(schedule.id, id)).for('update');
  const project = row && (await getProject(tx, actor, row.projectId));
  // deleted after `requireSchedule` read it
  if (!project) throw notFound('Schedule', id, [...inputPath, 'id']);
  requireActive(project, [...inputPath, 'id']);
  return row;
}

/**
 * Returns the version of the defaults that the template resolves with. Throws INVALID_INPUT with
 * the issues in `settings` and those of the template, and what submitting the template now would
 * throw.
 */
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
  const plan = await planJob(tx, actor, { spec, issues, at: templatePath, ...(template ? { template } : {}) });
  if (plan.ready && settings.length === 0) return plan.defaults.version;
  const specIssues = plan.ready ? [] : (plan.refusal.details.issues ?? []);
  if (settings.length > 0 || specIssues.length > 0) throw invalid([...settings, ...specIssues]);
  throw plan.ready ? new Error('A plan that is ready was refused.') : plan.refusal;
}

function settingIssues(settings: ScheduleSettings, clock: Date): Issue[] {
  const issues = calendarIssues(settings, inputPath, clock);
  const { name, startingDeadlineSeconds: deadline } = settings;
  if (name.length < 1 || name.length > 100 || name.includes('\0') || !name.isWellFormed()) {
    issues.push({
      code: 'OUT_OF_RANGE',
      path: [...inputPath, 'name'],
      specPath: 'schedule.name',
      message: 'name takes 1 to 100 characters.',
    });
  }
  issues.push(...findCredentials(name, [...inputPath, 'name']));
  const { min, max } = deadlineRange;
  if (deadline < min || deadline > max) {
    const message = `startingDeadlineSeconds goes from ${min} to ${max}.`;
    issues.push({
      code: 'OUT_OF_RANGE',
      path: [...inputPath, 'startingDeadlineSeconds'],
      specPath: 'schedule.starting_deadline_seconds',
      message,
    });
  }
  return issues;
}

function otherProject(row: Schedule): Issue {
  const message = `projectId must be ${row.projectId}: a schedule stays in its project.`;
  return { code: 'NOT_ALLOWED', path: [...templatePath, 'projectId'], specPath: 'project_id', message };
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
    path: [...inputPath, 'name'],
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
