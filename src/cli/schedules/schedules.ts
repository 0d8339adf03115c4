// `astraml schedules`: jobs that are submitted at due times. A schedule is named by its name in the
// project or by its id.
import { closest } from '../../closest.ts';
import type { Cli } from '../cli.ts';
import { exitCodes, Failure } from '../failure.ts';
import { select } from '../fields.ts';
import { toCount } from '../flags.ts';
import { jobAnswer, type JobLine } from '../jobs/fields.ts';
import { jobName } from '../jobs/outcome.ts';
import { cell, stateCell } from '../output.ts';
import { type Page, pageFields, readAll } from '../pages.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { requireSpec } from '../spec-file.ts';
import { mergeSpec, type SpecFlags } from '../spec-flags.ts';
import { printSchedule, sendSchedule } from './create.ts';
import { cronFields, type Schedule, scheduleFields, schedulePageFields } from './fields.ts';
import { flagInput, missingCron, type ScheduleFlags, splitSchedule } from './input.ts';

type CreateOptions = ScheduleFlags &
  Pick<SpecFlags, 'model' | 'dataset' | 'set'> & { file: string; name?: string; idempotencyKey?: string };
type UpdateOptions = ScheduleFlags & { file?: string; name?: string };
type PreviewOptions = { tz?: string; limit: string };

export async function runSchedules(cli: Cli, options: { header?: boolean }): Promise<number> {
  const schedules = await listSchedules<Schedule>(cli, select(scheduleFields));
  if (cli.out.json) await cli.out.printJson(schedules);
  else if (schedules.length > 0) {
    const rows = schedules.map(({ name, cron, pausedAt, nextRuns, lastJob }) => [
      cell(name),
      cron,
      pausedAt ? 'paused' : (nextRuns[0] ?? ''),
      lastJob ? stateCell(cli.out, lastJob.state) : '',
    ]);
    await cli.out.table(['NAME', 'CRON', 'NEXT', 'LAST-STATE'], rows, options);
  } else cli.out.note(`${cli.requireProject()} has no schedules.`);
  return exitCodes.done;
}

export async function runSchedulesCreate(cli: Cli, options: CreateOptions): Promise<number> {
  const { name: _, ...flags } = options; // `name` names the schedule, not its jobs
  const { template, schedule, issues } = splitSchedule(await mergeSpec(cli, flags, []), options);
  const settings = { ...schedule, ...(options.name === undefined ? {} : { name: options.name }) };
  const spec = await requireSpec(template, [...issues, ...missingCron(settings)]);
  return sendSchedule(cli, { spec, schedule: settings, idempotencyKey: options.idempotencyKey });
}

type Run = {
  dueAt: string;
  lastDueAt: string;
  outcome: string;
  reason: { code: string; message: string } | null;
  job: { number: number; state: string; project: { id: string } } | null;
};

export async function runSchedulesShow(cli: Cli, _options: object, [name = '']: string[]): Promise<number> {
  const { out } = cli;
  const found = await findSchedule<Schedule & { runs: { nodes: Run[] } }>(cli, name, select(schedulePageFields));
  if (out.json) {
    await out.printJson(found);
    return exitCodes.done;
  }
  const lines: [string, string][] = [
    ['id', found.id],
    ['name', found.name],
    ['project', found.project.id],
    ['cron', `${found.cron} (${found.description}, ${found.timezone})`],
    ['next', found.pausedAt ? `paused since ${found.pausedAt}` : found.nextRuns.join(' ')],
    ['on overlap', found.onOverlap],
    ['starting deadline', `${found.startingDeadlineSeconds} s`],
    ['defaults', found.defaultsVersion],
  ];
  for (const [label, value] of lines) await out.print(`${label}\t${cell(value)}`);
  for (const run of found.runs.nodes) {
    const due = run.lastDueAt === run.dueAt ? run.dueAt : `${run.dueAt} to ${run.lastDueAt}`;
    const what = run.job ? `${jobName(run.job)} ${run.job.state}` : (run.reason?.message ?? '');
    await out.print(['due', due, run.reason?.code ?? run.outcome, cell(what)].join('\t'));
  }
  return exitCodes.done;
}

export async function runSchedulesUpdate(
  cli: Cli,
  { file, name, ...flags }: UpdateOptions,
  [operand = '']: string[],
): Promise<number> {
  const named = name === undefined ? {} : { name };
  if (file === undefined) return change(cli, operand, { ...flagInput(flags), ...named });
  const { template, schedule, issues } = splitSchedule(await mergeSpec(cli, { file }, []), flags);
  return change(cli, operand, { ...schedule, ...named, spec: await requireSpec(template, issues) });
}

export const runSchedulesPause = (cli: Cli, _options: object, [name = '']: string[]) =>
  change(cli, name, { paused: true });
export const runSchedulesResume = (cli: Cli, _options: object, [name = '']: string[]) =>
  change(cli, name, { paused: false });

async function change(cli: Cli, name: string, fields: object): Promise<number> {
  const { id } = await findSchedule<{ id: string }>(cli, name, '{ id }');
  const mutation = `mutation($input: UpdateScheduleInput!) {
    updateSchedule(input: $input) {
      __typename ... on SchedulePayload { schedule ${select(scheduleFields)} } ...Problem
    }
  } ${problemFragment}`;
  type Payload = { __typename: 'SchedulePayload'; schedule: Schedule };
  const answer = await cli.request<{ updateSchedule: Payload | Problem }>(mutation, { input: { id, ...fields } });
  if (!('schedule' in answer.updateSchedule)) throw refusedBy(answer.updateSchedule);
  await printSchedule(cli, answer.updateSchedule.schedule);
  return exitCodes.done;
}

export async function runSchedulesTrigger(
  cli: Cli,
  { idempotencyKey = `cli-${crypto.randomUUID()}` }: { idempotencyKey?: string },
  [name = '']: string[],
): Promise<number> {
  const { id } = await findSchedule<{ id: string }>(cli, name, '{ id }');
  const mutation = `mutation($input: TriggerScheduleInput!) {
    triggerSchedule(input: $input) {
      __typename ... on TriggerSchedulePayload { replayed job ${jobAnswer} } ...Problem
    }
  } ${problemFragment}`;
  type Payload = { __typename: 'TriggerSchedulePayload'; job: JobLine; replayed: boolean };
  const { triggerSchedule: result } = await cli.request<{ triggerSchedule: Payload | Problem }>(
    mutation,
    { input: { id, idempotencyKey } },
    { patient: true },
  );
  if (!('job' in result)) throw refusedBy(result);
  if (cli.out.json) await cli.out.printJson(result.job);
  else await cli.out.print(`${result.job.id} ${jobName(result.job)} ${result.job.state}`);
  return exitCodes.done;
}

export async function runSchedulesDelete(cli: Cli, _options: object, [name = '']: string[]): Promise<number> {
  const { id } = await findSchedule<{ id: string }>(cli, name, '{ id }');
  const mutation = `mutation($input: ScheduleIdInput!) {
    deleteSchedule(input: $input) { __typename ... on DeletePayload { deletedId } ...Problem }
  } ${problemFragment}`;
  type Payload = { __typename: 'DeletePayload'; deletedId: string };
  // Not repeated: after a lost answer a repeat would get NOT_FOUND, although this command deleted
  // the schedule.
  const { deleteSchedule: result } = await cli.request<{ deleteSchedule: Payload | Problem }>(
    mutation,
    { input: { id } },
    { repeatable: false },
  );
  if (!('deletedId' in result)) throw refusedBy(result);
  if (cli.out.json) await cli.out.printJson(result);
  else await cli.out.print(`${cell(name)} deleted; its jobs stay`);
  return exitCodes.done;
}

/** Prints an expression in words and its next due times, in UTC and in its time zone. */
export async function runSchedulesPreview(cli: Cli, options: PreviewOptions, [cron = '']: string[]) {
  const first = toCount('-n', options.limit, { max: 50 });
  const query = `query($cron: String!, $timezone: String!, $first: Int!) {
    previewCron(cron: $cron, timezone: $timezone, first: $first) ${select(cronFields)}
  }`;
  type Preview = { description: string; timezone: string; nextRuns: string[] };
  const variables = { cron, timezone: options.tz ?? 'UTC', first };
  const { previewCron: preview } = await cli.request<{ previewCron: Preview }>(query, variables);
  const { description, timezone, nextRuns } = preview;
  if (cli.out.json) await cli.out.printJson(preview);
  else {
    await cli.out.print(`${cell(description)} (${timezone})`);
    for (const time of nextRuns) await cli.out.print(`${time}\t${localTime(time, timezone)}`);
  }
  return exitCodes.done;
}

/** Returns a time in a time zone, e.g. `2026-11-24 02:00 GMT+5:30`. */
function localTime(time: string, timeZone: string): string {
  const day = new Date(time).toLocaleDateString('sv-SE', { timeZone });
  const clock = {
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
    timeZoneName: 'shortOffset',
    timeZone,
  } as const;
  return `${day} ${new Date(time).toLocaleTimeString('en-GB', clock)}`;
}

/**
 * Returns the schedule with this name in the project, or with this id. Throws a Failure when there
 * is none.
 */
async function findSchedule<Found>(cli: Cli, name: string, selection: string): Promise<Found> {
  if (/^sch_[0-9a-z]{26}$/.test(name)) {
    const query = `query($id: ID!) { node(id: $id) { ... on Schedule ${selection} } }`;
    const { node } = await cli.request<{ node: Found | null }>(query, { id: name });
    if (node) return node;
    throw new Failure(exitCodes.notFound, `Schedule ${name} does not exist, or you may not see it.`);
  }
  const schedules = await listSchedules<{ id: string; name: string }>(cli, '{ id name }');
  const match = schedules.find((schedule) => schedule.name === name);
  if (match) return findSchedule(cli, match.id, selection);
  const near = closest(
    name,
    schedules.map((schedule) => schedule.name),
  );
  const hint = near ? `Did you mean "${near}"?` : 'astraml schedules lists them.';
  throw new Failure(exitCodes.notFound, `${cli.requireProject()} has no schedule "${cell(name)}".`, hint);
}

async function listSchedules<Found>(cli: Cli, selection: string): Promise<Found[]> {
  const projectId = cli.requireProject();
  const query = `query($projectId: ID!, $first: Int!, $after: String) { project(id: $projectId) {
    schedules(first: $first, after: $after) { nodes ${selection} ${pageFields} } } }`;
  return readAll(async (page) => {
    type Answer = { project: { schedules: Page<Found> } | null };
    const { project } = await cli.request<Answer>(query, { projectId, ...page });
    if (project) return project.schedules;
    throw new Failure(exitCodes.notFound, `Project ${projectId} does not exist, or you may not see it.`);
  });
}
