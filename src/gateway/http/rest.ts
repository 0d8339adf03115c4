// /v1/jobs: jobs over plain HTTP. It calls the same functions as `submitJob`, `job` and `cancelJob`
// of GraphQL.
//
// - POST /v1/jobs: the body is the job spec file as JSON; `Idempotency-Key` is a header. Answers
//   201 with Location, 200 when the key repeats an earlier submission.
// - GET /v1/jobs/{id}: answers 200.
// - POST /v1/jobs/{id}/cancel: an optional body { reason, grace_period_seconds }. Answers 200.
//
// The answer is the job: id, number, name, project_id, state, state_reason { code, message, hint,
// log_excerpt }; the effective spec with the keys of the spec file (model, dataset, command,
// hyperparams, augmentation, resources, env, …); resolved [{ path, value, source, overrides }],
// spec (as sent), defaults_version, policy_revision, spec_hash; tags, notes; schedule_id, due_at
// (null for a job of no schedule), submitted_by { id, name }; created_at, started_at, finished_at,
// updated_at; warnings when it was just submitted.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { z } from 'zod';
import { accountOf, type Actor, requireActor, requireScope } from '../../actor.ts';
import { cancelJob } from '../../attempt/cancel.ts';
import { readsOf, waitReason } from '../../attempt/wait.ts';
import { invalid, type Issue, notFound } from '../../errors.ts';
import type { ReportBug } from '../../graphql/error.ts';
import { toJsonInTurns } from '../../graphql/json.ts';
import { idPrefix } from '../../id.ts';
import { type Job, requireJob } from '../../job/job.ts';
import { commit } from '../../live/commit.ts';
import { loadTokens } from '../../project/token.ts';
import { loadSchedules } from '../../schedule/schedule.ts';
import { specPathOf } from '../../spec/input.ts';
import { parseSpec } from '../../spec/spec.ts';
import { keyOf, submit } from '../../submission/submit.ts';
import { actorOf, type Gateway, tokenOf } from '../context.ts';
import type { RequestEntry } from '../watch/request-log.ts';
import { isRefused, readJson, type Refused } from './guard.ts';
import { sendPieces } from './long-answer.ts';
import { refuseRest, sendProblem } from './problem.ts';

type Answer = { status: number; body: unknown; headers?: Record<string, string> };
type Call = { gateway: Gateway; actor: Actor; request: IncomingMessage; jobId: string };
type Route = { method: 'GET' | 'POST'; bodyOptional?: true; answer: (call: Call, body: unknown) => Promise<Answer> };

export function isRestPath(path: string): boolean {
  return path === '/v1' || path.startsWith('/v1/');
}

/** Answers a request that passed the checks of host and origin. Never throws. */
export async function answerRest(
  { gateway, report, entry }: { gateway: Gateway; report: ReportBug; entry: RequestEntry },
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): Promise<void> {
  const match = findRoute(path);
  const { publicUrl, maxBodyBytes } = gateway.config;
  const refuse = (refused: Refused) => refuseRest(response, refused, publicUrl);
  if (!match) return refuse({ status: 404, message: 'There is nothing at this path; see /v1/jobs.' });
  const { route, jobId } = match;
  if (response.hasHeader('access-control-allow-origin')) {
    response.setHeader('access-control-expose-headers', 'location, retry-after');
  }
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  if (method !== route.method) {
    response.setHeader('allow', `${route.method === 'GET' ? 'GET, HEAD' : route.method}, OPTIONS`);
    if (method === 'OPTIONS') return void response.writeHead(204).end();
    return refuse({ status: 405, message: `Use ${route.method}.` });
  }
  try {
    const actor = (entry.actor = requireActor(await actorOf(gateway, tokenOf(request))));
    const body = route.method === 'GET' ? { json: null } : await bodyOf(request, response, route, maxBodyBytes);
    if (isRefused(body)) return refuse(body);
    await gateway.admission.charge(actor, 1);
    const budget = gateway.resultBytes.open(accountOf(actor));
    response.once('close', budget.close);
    const call = { gateway, actor, request, jobId };
    const { status, body: json, headers } = await gateway.admission.run(() => route.answer(call, body.json));
    const text = await toJsonInTurns(json, budget.takeAnswer);
    await sendPieces(response, { status, headers: { 'content-type': 'application/json', ...headers }, ...text });
  } catch (error) {
    sendProblem(response, error, { report, publicUrl });
  }
}

function findRoute(path: string): { route: Route; jobId: string } | null {
  if (path === '/v1/jobs') return { route: { method: 'POST', answer: submitOne }, jobId: '' };
  const [, jobId = '', action] = /^\/v1\/jobs\/([^/]+)(\/cancel)?$/.exec(path) ?? [];
  if (jobId === '') return null;
  if (action) return { route: { method: 'POST', bodyOptional: true, answer: cancel }, jobId };
  return { route: { method: 'GET', answer: get }, jobId };
}

async function bodyOf(request: IncomingMessage, response: ServerResponse, route: Route, maxBytes: number) {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = request.headers;
  if (route.bodyOptional && length === '0' && encoding === undefined) return { json: {} };
  return readJson(request, response, maxBytes);
}

async function submitOne({ gateway, actor, request }: Call, body: unknown): Promise<Answer> {
  const spec = asSpec(body);
  const projectId = spec['project_id'];
  if (typeof projectId !== 'string' || projectId === '') throw invalid(parseSpec(spec).issues);
  requireScope(actor, projectId, 'WRITE', ['project_id']);
  const key = request.headers['idempotency-key'];
  const keyed = keyOf('submitJob', typeof key === 'string' ? key : null, spec);
  const { job, replayed, warnings } = await submit(gateway, actor, { spec, at: [] }, keyed);
  const shown = warnings.map(({ path, ...warning }) => ({ ...warning, path: path && specPathOf(path) }));
  return {
    status: replayed ? 200 : 201,
    headers: { location: `/v1/jobs/${job.id}` },
    body: { ...(await jobAnswer(gateway, job)), ...(replayed ? {} : { warnings: shown }) },
  };
}

async function get({ gateway, actor, jobId }: Call): Promise<Answer> {
  return {
    status: 200,
    body: await jobAnswer(gateway, await requireJob(gateway.database.db, actor, requireJobId(jobId))),
  };
}

const cancelRequest = z.strictObject({ reason: z.string().nullish(), grace_period_seconds: z.int().nullish() });

async function cancel({ gateway, actor, jobId }: Call, body: unknown): Promise<Answer> {
  const parsed = cancelRequest.safeParse(body);
  if (!parsed.success) throw invalid(parsed.error.issues.map(cancelIssue));
  const { reason = null, grace_period_seconds: gracePeriodSeconds = null } = parsed.data;
  const input = { id: requireJobId(jobId), reason, gracePeriodSeconds };
  const job = await commit(gateway, (tx) => cancelJob(tx, actor, input));
  return { status: 200, body: await jobAnswer(gateway, job) };
}

function cancelIssue(issue: z.core.$ZodIssue): Issue {
  const hint = 'Send nothing, or { "reason": "…", "grace_period_seconds": 30 }.';
  if (issue.code === 'unrecognized_keys') {
    return { code: 'UNKNOWN_FIELD', path: issue.keys.slice(0, 1), message: 'There is no such field here.', hint };
  }
  const path = issue.path.map(String);
  return { code: 'WRONG_TYPE', path, message: `${path[0] ?? 'The body'} has another type than expected.`, hint };
}

/** Returns the id; throws NOT_FOUND when it is not the id of a job. */
function requireJobId(jobId: string): string {
  if (idPrefix(jobId) !== 'job') throw notFound('Job', jobId);
  return jobId;
}

/** Returns the body as a job spec. Its content is checked when the job is planned. */
function asSpec(body: unknown): Record<string, unknown> {
  if (isObject(body)) return body;
  throw invalid([{ code: 'WRONG_TYPE', path: [], message: 'The body must be an object: a job spec.' }]);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

async function jobAnswer({ database }: Gateway, job: Job) {
  const { db } = database;
  const by = await submitterOf(db, job);
  return {
    id: job.id,
    number: job.number,
    name: job.name,
    state: job.state,
    state_reason: await reasonOf(database.db, job),
    ...job.effective,
    tags: job.tags,
    notes: job.notes,
    resolved: job.resolved,
    spec: job.spec,
    defaults_version: job.defaultsVersion,
    policy_revision: job.policyRevision,
    spec_hash: job.specHash,
    schedule_id: job.scheduleId,
    due_at: job.dueAt,
    submitted_by: by ? { id: by.id, name: by.name } : null,
    created_at: job.createdAt,
    started_at: job.startedAt,
    finished_at: job.finishedAt,
    updated_at: job.updatedAt,
  };
}

async function submitterOf(db: Gateway['database']['db'], { submittedBy }: Job) {
  if (submittedBy === null) return undefined;
  const loadActors = idPrefix(submittedBy) === 'sch' ? loadSchedules : loadTokens;
  return (await loadActors(db, [submittedBy])).get(submittedBy);
}

async function reasonOf(db: Gateway['database']['db'], job: Job) {
  if (job.state === 'QUEUED') {
    const { code, message, hint = null, logExcerpt = [] } = await waitReason(job, readsOf(db));
    return { code, message, hint, log_excerpt: logExcerpt };
  }
  if (job.reasonCode === null) return null;
  return { code: job.reasonCode, message: job.reasonMessage, hint: job.reasonHint, log_excerpt: job.logExcerpt };
}
