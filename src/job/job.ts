// Jobs: submission, and the only place where a job's state changes.
import { and, arrayContains, eq, getTableColumns, gte, ilike, lt, or, type SQL, sql } from 'drizzle-orm';
import { type Actor, canSee, requireScope } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { insertRows, isOneOf } from '../database/rows.ts';
import {
  defaultsLayer,
  type Defaults,
  getDefaults,
  listDefaults,
  requireUsable,
  versionHint,
} from '../defaults/defaults.ts';
import { invalid, type Issue, notFound, quote, Refusal } from '../errors.ts';
import { type NewEvent, recordEvent, recordEvents } from '../event/event.ts';
import { newId } from '../id.ts';
import { notifyProject } from '../live/changes.ts';
import type { Tx } from '../live/commit.ts';
import { checkRules, policyViolated, sortViolations } from '../policy/check.ts';
import { emptyPolicy, findCurrentPolicy, type Policy, policyLayer } from '../policy/policy.ts';
import { archivedRefusal, loadProjects, type Project } from '../project/project.ts';
import { hashOf, takeKey } from '../replay/replay.ts';
import { unknownSecrets } from '../secret/secret.ts';
import { atInput } from '../spec/input.ts';
import {
  effectiveSpec,
  type Layer,
  layerOf,
  type ResolvedValue,
  resolve,
  trainingPart,
  withChanges,
} from '../spec/resolve.ts';
import type { EffectiveSpec, Spec } from '../spec/shape.ts';
import { parseSpec, unkeepable, type Warning } from '../spec/spec.ts';
import { randomName } from './name.ts';
import { isTerminal, type JobState, requireMove, type StateReason } from './state.ts';
import { job, jobStream } from './table.ts';

export type Job = typeof job.$inferSelect;

export type Submission = {
  /** The job spec file's content, as sent. */
  spec: Record<string, unknown>;
  /** Problems found where the spec was read, e.g. in the notation it came in. */
  issues?: Issue[];
  idempotencyKey: string | null;
  /** A number that nobody else has. */
  number: number;
  /** Where the caller sent the spec, e.g. `['input', 'spec']`. */
  at: readonly string[];
  /** Hash that a preview gave: anything else is refused. */
  expectedSpecHash?: string | null | undefined;
  /** The schedule whose template the spec is; absent for a spec that was sent. */
  template?: Template;
  /** The finished job whose values it takes, and what the caller changes of them. */
  retried?: { job: Job; changes: Record<string, unknown> };
};

export type Template = {
  scheduleId: string;
  /** Defaults to resolve with where the spec names none. */
  defaultsVersion: string;
  /** Due time that the job is for; null when somebody asked for it. */
  dueAt: Date | null;
};

/** Accepts a job: key, job and event in one transaction. All problems of the spec are refused at once. */
export async function submitJob(
  tx: Tx,
  actor: Actor,
  submission: Submission,
): Promise<{ job: Job; replayed: boolean; warnings: Warning[] }> {
  const projectId = projectOf(submission.spec);
  requireScope(actor, projectId, 'WRITE', [...submission.at, 'projectId']);
  const id = newId('job');
  if (unkeepable(submission.spec).length > 0) {
    // Refused before the key's row holds it: a row that is rolled back stays on disk for a while.
    const plan = await planJob(tx, actor, submission);
    if (!plan.ready) throw plan.refusal;
  }
  if (submission.idempotencyKey !== null) {
    const keyed = { scope: projectId, mutation: 'submitJob', key: submission.idempotencyKey };
    const known = await takeKey(tx, { ...keyed, input: submission.spec, objectId: id });
    if (known) {
      const first = await requireJob(tx, actor, known);
      requireExpected(submission, first.specHash);
      return { job: first, replayed: true, warnings: [] };
    }
  }
  return { ...(await createJob(tx, actor, submission, id)), replayed: false };
}

/** Writes a job and its first event under an id that is new, or refuses with all problems at once and writes nothing. */
export async function createJob(
  tx: Tx,
  actor: Actor,
  submission: Omit<Submission, 'idempotencyKey'>,
  id: string,
): Promise<{ job: Job; warnings: Warning[] }> {
  const plan = await planJob(tx, actor, submission);
  if (!plan.ready) throw plan.refusal;
  requireExpected(submission, plan.specHash);
  const [created] = await insertJobs(tx, [draftJob(actor, submission, plan, id)]);
  if (!created) throw new Error('An insert returned no row.');
  return { job: created, warnings: plan.warnings };
}

/** What is written of a new job: its row, without what the database fills in, and its first event. */
export type JobDraft = { row: ReturnType<typeof draftJob>['row']; event: NewEvent };

export function draftJob(
  actor: Actor,
  submission: Omit<Submission, 'idempotencyKey'>,
  plan: JobPlan & { ready: true },
  id: string,
) {
  const { spec, effective, resolved } = plan;
  const projectId = projectOf(submission.spec);
  const row = {
    id,
    projectId,
    number: submission.number,
    name: spec.name ?? randomName(),
    state: 'QUEUED',
    model: spec.model,
    dataset: spec.dataset,
    spec: submission.spec,
    effective,
    resolved,
    defaultsVersion: plan.defaults.version,
    policyRevision: plan.policy.revision,
    specHash: plan.specHash,
    tags: spec.tags ?? [],
    notes: spec.notes ?? null,
    priority: effective.priority,
    gpus: effective.resources.gpus,
    timeoutSeconds: effective.timeout_seconds ?? null,
    submittedBy: actor.tokenId,
    scheduleId: submission.template?.scheduleId ?? null,
    dueAt: submission.template?.dueAt ?? null,
    retriedFrom: submission.retried?.job.id ?? null,
  } satisfies typeof job.$inferInsert;
  const ofPolicy = plan.warnings.filter(({ code }) => code === 'POLICY_WARNING').map(({ message }) => message);
  const notSecret = (spec.env ?? []).filter((variable) => variable.not_secret).map(({ name }) => name);
  const vouched = notSecret.length > 0 ? [`Said to be no credential: ${notSecret.join(', ')}.`] : [];
  const origin = `Submitted by ${actor.name} with ${originOf(submission, plan.defaults)}.`;
  const event: NewEvent = {
    type: 'SUBMITTED',
    projectId,
    jobId: id,
    seq: 1,
    actorId: actor.tokenId,
    message: [origin, ...vouched, ...ofPolicy].join(' '),
    ...(notSecret.length > 0 ? { data: { notSecret } } : {}),
  };
  return { row, event };
}

/** When a queued job is given up, by the database's clock; null for never. */
const queueEnd = sql`${now} + (effective ->> 'queue_timeout_seconds')::float8 * interval '1 s'`;

/** Writes new jobs, each with its stream and its first event; at least one. They come back in any order. */
export async function insertJobs(tx: Tx, drafts: readonly JobDraft[]): Promise<Job[]> {
  const rows = drafts.map(({ row }) => row);
  const made = tx
    .$with('made', getTableColumns(job))
    .as(sql`${insertRows(job, rows, { queueExpiresAt: queueEnd })} returning *`);
  const streams = rows.map(({ id }) => ({ jobId: id, event: 1 }));
  // Sent together, in this order: what refers to the jobs comes behind them.
  const [created] = await Promise.all([
    tx.with(made).select().from(made).execute(),
    tx.execute(insertRows(jobStream, streams)).execute(),
    recordEvents(
      tx,
      drafts.map(({ event }) => event),
    ),
  ]);
  tx.notify(channels.work);
  return created;
}

function originOf({ retried }: Pick<Submission, 'retried'>, { version }: Defaults): string {
  return retried ? `the values of ${retried.job.projectId}/${retried.job.number}` : `defaults ${version}`;
}

export function isExpected({ expectedSpecHash }: Pick<Submission, 'expectedSpecHash'>, specHash: string): boolean {
  return expectedSpecHash === null || expectedSpecHash === undefined || expectedSpecHash === specHash;
}

/** Throws INVALID_STATE when the caller was shown another job than it would get. */
function requireExpected(submission: Pick<Submission, 'expectedSpecHash'>, specHash: string): void {
  if (isExpected(submission, specHash)) return;
  const expected = submission.expectedSpecHash ?? '';
  throw new Refusal('INVALID_STATE', `The spec resolves to ${specHash} now, not to ${quote(expected)}.`, {
    path: ['input', 'expectedSpecHash'],
    hint: 'Defaults, policy or spec changed since: preview it again, and submit with the hash of that preview.',
    currentState: specHash,
  });
}

export type JobPlan = {
  resolved: ResolvedValue[];
  warnings: Warning[];
  defaults: Defaults | null;
  /** The project's policy in force; null when the caller may not see the project. */
  policy: Policy | null;
} & (
  | { ready: true; spec: Spec; effective: EffectiveSpec; defaults: Defaults; policy: Policy; specHash: string }
  | { ready: false; refusal: Refusal; specHash: null }
);

/** What a spec is resolved and checked with. */
export type PlanInputs = { project: Project | null; defaults: Defaults | null; policy: Policy | null };

/** As committed when this is asked; the current defaults for a version of null. */
export async function readPlanInputs(db: Db, projectId: string, version: string | null): Promise<PlanInputs> {
  if (projectId.includes('\0')) return { project: null, defaults: null, policy: null };
  // Sent together: one after the other, a submission would mostly wait for answers.
  const [projects, defaults, policy] = await Promise.all([
    loadProjects(db, [projectId]),
    getDefaults(db, version),
    findCurrentPolicy(db, projectId),
  ]);
  return { project: projects.get(projectId) ?? null, defaults, policy };
}

/** No version has a longer name. */
const maxVersion = 50;

/** What submitting would do: the effective values as far as they can be told, and the refusal if there is one. */
export async function planJob(
  db: Db,
  actor: Actor,
  submission: Pick<Submission, 'spec' | 'issues' | 'at' | 'retried'> & {
    template?: Pick<Template, 'defaultsVersion'>;
  },
  read = readPlanInputs,
): Promise<JobPlan> {
  const projectId = projectOf(submission.spec);
  const version = submission.spec['defaults_version'] ?? submission.template?.defaultsVersion;
  const named = typeof version === 'string' && version.length <= maxVersion ? version : null; // others are refused below
  const { project, defaults, policy: current } = await read(db, projectId, named);
  if (!project || !canSee(actor, projectId))
    return refusedPlan(notFound('Project', projectId, [...submission.at, 'projectId']));
  if (project.archivedAt) return refusedPlan(archivedRefusal(project.id, [...submission.at, 'projectId']));

  const parsed = parseSpec(submission.spec);
  const policy = current ?? emptyPolicy(project);
  const ofPolicy = policyLayer(policy);
  const issues = [
    ...parsed.issues.map((issue) => atInput(issue, submission.at)),
    ...(submission.issues ?? []).map((issue) => ({ ...issue, path: [...submission.at, ...issue.path] })),
    ...(defaults ? [] : [await unknownVersion(db, named ?? '', submission.at)]),
    ...(project.command || ofPolicy.has('command') || submission.spec['command'] || submission.retried
      ? []
      : [missingCommand(project, submission.at)]),
    ...(await unknownSecrets(db, projectId, parsed.spec?.env ?? [])).map((issue) => atInput(issue, submission.at)),
  ];
  if (!parsed.spec || !defaults || issues.length > 0) return refusedPlan(invalid(issues), { defaults, policy });
  requireUsable(defaults);

  const { spec } = parsed;
  const request = layerOf(spec, submission.template ? 'SCHEDULE' : 'REQUEST');
  const resolved = submission.retried
    ? withChanges(submission.retried.job.resolved, layerOf(submission.retried.changes, 'REQUEST'))
    : resolve([...layersOverDefaults(request, policy, project), defaultsLayer(defaults)]);
  const effective = effectiveSpec(resolved, spec);
  const advice = parsed.warnings.map((warning) => ({
    ...warning,
    path: warning.path && atInput({ code: 'NOT_ALLOWED', message: '', path: warning.path }, submission.at).path,
  }));
  const violations = sortViolations(checkRules(policy.rules, request, resolved), submission.at);
  const warnings = [...advice, ...violations.warnings];
  if (violations.denied.length > 0) {
    const refusal = policyViolated(violations.denied, submission.at);
    return refusedPlan(refusal, { resolved, warnings, defaults, policy });
  }
  const specHash = hashOf(trainingPart(effective));
  return { ready: true, spec, resolved, effective, warnings, defaults, policy, specHash };
}

/** What stands above the defaults of any version, strongest first. */
export function layersOverDefaults(request: Layer, policy: Policy, { command }: Project): Layer[] {
  return [request, policyLayer(policy), layerOf(command ? { command } : {}, 'PROJECT')];
}

/** A plan that came to nothing, with what is known of it. */
export function refusedPlan(refusal: Refusal, known: Partial<JobPlan> = {}): JobPlan {
  const nothing = { resolved: [], warnings: [], defaults: null, policy: null };
  return { ...nothing, ...known, ready: false, refusal, specHash: null };
}

export function projectOf(spec: Record<string, unknown>): string {
  const projectId = spec['project_id'];
  return typeof projectId === 'string' ? projectId : '';
}

async function unknownVersion(db: Db, version: string, at: readonly string[]): Promise<Issue> {
  return {
    code: 'UNKNOWN_VERSION',
    path: [...at, 'defaultsVersion'],
    specPath: 'defaults_version',
    message: 'defaults_version is not a published version of the defaults.',
    hint: versionHint(version, await listDefaults(db)),
  };
}

function missingCommand(project: Project, at: readonly string[]): Issue {
  return {
    code: 'REQUIRED',
    path: [...at, 'command'],
    specPath: 'command',
    message: `command is required: project ${project.id} has none for jobs that give none.`,
    hint: 'Give the command as a list of words, e.g. ["python", "train.py"].',
  };
}

/** A job whose row is locked, with the last numbers of its streams. Change it in place; `changeJob` writes it back. */
export type LockedJob = { job: Job; stream: typeof jobStream.$inferSelect };

/**
 * Locks the job, lets `work` change it, writes back what changed, and tells the followers. Whoever needs several jobs
 * calls it in order of their ids. Null when there is no such job.
 */
export async function changeJob<T>(tx: Tx, jobId: string, work: (locked: LockedJob) => Promise<T>): Promise<T | null> {
  // Sent together: the second begins once the first has its lock, and sees what was committed by then.
  const [[stream], [found]] = await Promise.all([
    tx.select().from(jobStream).where(eq(jobStream.jobId, jobId)).for('update').execute(),
    tx.select().from(job).where(eq(job.id, jobId)).execute(),
  ]);
  if (!stream || !found) return null;
  const locked: LockedJob = { job: { ...found }, stream: { ...stream } };
  const result = await work(locked);

  const touched = Object.entries(locked.job).filter(([key, value]) => value !== found[key as keyof Job]);
  if (touched.length > 0 || locked.stream.event !== stream.event) {
    locked.stream.revision++;
    const changed = sql`greatest(pg_current_xact_id(), ${job.changed})`; // never down: see recordEvent
    const [written] = await tx
      .update(job)
      .set({ ...Object.fromEntries(touched), updatedAt: now, changed })
      .where(eq(job.id, jobId))
      .returning({ changed: job.changed });
    if (written) notifyProject(tx, locked.job.projectId, written.changed);
  }
  const { line, event, window, revision, logBytes, metricNames, metricRefused } = locked.stream;
  const moved = line - stream.line + event - stream.event + window - stream.window + revision - stream.revision;
  if (moved === 0) return result;
  const streams = { line, event, window, revision, logBytes, metricNames, metricRefused };
  await tx.update(jobStream).set(streams).where(eq(jobStream.jobId, jobId));
  tx.notify(channels.job(jobId), { line, event, window, revision, end: Number(isTerminal(locked.job.state)) });
  return result;
}

/** Writes an event of a locked job, with the job's next event number. */
export async function addEvent(
  tx: Tx,
  locked: LockedJob,
  entry: Omit<NewEvent, 'projectId' | 'jobId' | 'seq'>,
): Promise<void> {
  const seq = ++locked.stream.event;
  const { id: jobId, projectId, changed } = locked.job;
  await recordEvent(tx, { ...entry, projectId, jobId, seq }, changed);
}

/** Moves a locked job to another state, with its reason, its times and an event. The only place where states change. */
export async function moveJob(
  tx: Tx,
  locked: LockedJob,
  to: JobState,
  change: { reason: StateReason | null; at: Date; actorId?: string | null },
): Promise<void> {
  const { job: row } = locked;
  const from = row.state;
  requireMove(from, to);
  row.state = to;
  row.reasonCode = change.reason?.code ?? null;
  row.reasonMessage = change.reason?.message ?? null;
  row.reasonHint = change.reason?.hint ?? null;
  row.logExcerpt = change.reason?.logExcerpt ?? [];
  if (to === 'RUNNING') row.startedAt ??= change.at;
  if (isTerminal(to)) row.finishedAt = change.at;
  await addEvent(tx, locked, {
    type: 'STATE_CHANGED',
    actorId: change.actorId ?? null,
    message: change.reason?.message ?? `${from} → ${to}`,
    fromState: from,
    toState: to,
  });
}

/** The job, or null when there is none or the actor may not see it. */
export async function getJob(db: Db, actor: Actor, id: string): Promise<Job | null> {
  const found = (await loadJobs(db, [id])).get(id);
  return found && canSee(actor, found.projectId) ? found : null;
}

/** Like `getJob`; throws NOT_FOUND for null. */
export async function requireJob(db: Db, actor: Actor, id: string, path?: string[]): Promise<Job> {
  const found = await getJob(db, actor, id);
  if (!found) throw notFound('Job', id, path);
  return found;
}

/** A job with the number of its changes so far, and how far its streams have come, all of one moment. */
export type JobReading = { job: Job; revision: number; line: number; event: number; window: number };

export async function readJob(db: Db, id: string): Promise<JobReading> {
  const found = await findJob(db, id);
  if (!found) throw notFound('Job', id);
  return found;
}

/** Like `readJob`; null when there is none. */
export async function findJob(db: Db, id: string): Promise<JobReading | null> {
  if (id.includes('\0')) return null;
  const [found] = await db.select().from(job).innerJoin(jobStream, eq(jobStream.jobId, job.id)).where(eq(job.id, id));
  if (!found) return null;
  const { revision, line, event, window } = found.job_stream;
  return { job: found.job, revision, line, event, window };
}

/** Jobs by id, for callers who may see them. */
export async function loadJobs(db: Db, ids: readonly string[]): Promise<Map<string, Job>> {
  const wanted = ids.filter((id) => !id.includes('\0'));
  const rows = wanted.length > 0 ? await db.select().from(job).where(isOneOf(job.id, wanted)) : [];
  return new Map(rows.map((row) => [row.id, row]));
}

/** The job with this number, for callers who may see the project. */
export async function getJobByNumber(db: Db, projectId: string, number: number): Promise<Job | null> {
  const [found] = await db
    .select()
    .from(job)
    .where(and(eq(job.projectId, projectId), eq(job.number, number)));
  return found ?? null;
}

export type JobFilter = {
  projectIds?: string[] | null;
  states?: JobState[] | null;
  model?: string | null;
  tags?: string[] | null;
  scheduleId?: string | null;
  search?: string | null;
  createdAfter?: Date | null;
  createdBefore?: Date | null;
  submittedByMe?: boolean | null;
};

/** Orders of a list of jobs; each ends with the id, so that no two jobs share a place. */
const orders = {
  CREATED_AT: [job.createdAt, job.id],
  UPDATED_AT: [job.updatedAt, job.id],
  PRIORITY: [job.priority, job.createdAt, job.id],
} as const;
export type JobOrderField = keyof typeof orders;

/** Place of a job in an order, as a cursor holds it. */
export function jobPosition(row: Job, field: JobOrderField): (string | number)[] {
  if (field === 'PRIORITY') return [row.priority, row.createdAt.toISOString(), row.id];
  return [(field === 'CREATED_AT' ? row.createdAt : row.updatedAt).toISOString(), row.id];
}

/** Whether a cursor's content is a place in the order. */
export function isJobPosition(position: readonly unknown[], field: JobOrderField): boolean {
  const parts = field === 'PRIORITY' ? position.slice(1) : position;
  const [time, id] = parts;
  if (parts.length !== 2 || typeof time !== 'string' || typeof id !== 'string') return false;
  if (field === 'PRIORITY' && !(Number.isInteger(position[0]) && Math.abs(Number(position[0])) <= 100)) return false;
  return /^2\d{3}-/.test(time) && !Number.isNaN(Date.parse(time)) && new Date(time).toISOString() === time;
}

export type JobsRequest = {
  filter: JobFilter;
  field: JobOrderField;
  descending: boolean;
  limit: number;
  backward: boolean;
  after?: readonly unknown[] | undefined;
  before?: readonly unknown[] | undefined;
};

/** Jobs that the actor can see and that match, one more than the limit. */
export async function listJobs(db: Db, actor: Actor, options: JobsRequest): Promise<Job[]> {
  if (!actor.scopes.has('READ')) return [];
  const order = keyset(orders[options.field], options);
  const rows = await db
    .select()
    .from(job)
    .where(and(...matching(actor, options.filter), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

/** Number of jobs that the actor can see and that match. */
export async function countJobs(db: Db, actor: Actor, filter: JobFilter): Promise<number> {
  if (!actor.scopes.has('READ')) return 0;
  return db.$count(job, and(...matching(actor, filter)));
}

function matching(actor: Actor, filter: JobFilter): SQL[] {
  const conditions = jobConditions(actor, filter);
  return [...conditions.always, ...conditions.now];
}

/** What a filter asks: of a job for ever (a condition on what never changes), and of a job as it is now. */
export function jobConditions(actor: Actor, filter: JobFilter): { always: SQL[]; now: SQL[] } {
  const given = (conditions: (SQL | undefined)[]) => conditions.filter((condition) => condition !== undefined);
  return {
    always: given([
      actor.projectId === null ? undefined : eq(job.projectId, actor.projectId),
      filter.projectIds ? isOneOf(job.projectId, filter.projectIds) : undefined,
      filter.model ? eq(job.model, filter.model) : undefined,
      filter.scheduleId ? eq(job.scheduleId, filter.scheduleId) : undefined,
      filter.createdAfter ? gte(job.createdAt, filter.createdAfter) : undefined,
      filter.createdBefore ? lt(job.createdAt, filter.createdBefore) : undefined,
      filter.submittedByMe ? eq(job.submittedBy, actor.tokenId) : undefined,
    ]),
    now: given([
      filter.states ? isOneOf(job.state, filter.states) : undefined,
      filter.tags?.length ? arrayContains(job.tags, filter.tags) : undefined,
      filter.search ? containing(filter.search) : undefined,
    ]),
  };
}

/** A literal search: what is special to LIKE is escaped. */
function containing(search: string): SQL | undefined {
  const pattern = `%${search.replace(/[\\%_]/g, '\\$&')}%`;
  const tags = sql`array_to_string(${job.tags}, ' ')`;
  return or(
    ...[job.name, job.model, job.dataset, job.notes].map((column) => ilike(column, pattern)),
    ilike(tags, pattern),
  );
}
