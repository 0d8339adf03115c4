// `Schedule.runs` in GraphQL: the decisions on the due times of a schedule.
import { builder, type Context, load } from '../graphql/builder.ts';
import { connectionType, type Page, readPageArgs, toPage } from '../graphql/page.ts';
import { loadJobs } from '../job/job.ts';
import { JobRef } from '../job/schema.ts';
import { cursorInvalid, decodeText, encodeCursor } from '../live/cursor.ts';
import { listRuns, type ScheduleRun, type skipCodes, type SkipReason } from './run.ts';
import type { Schedule } from './schedule.ts';

const ScheduleRunOutcome = builder.enumType('ScheduleRunOutcome', {
  description: 'What became of a due time.',
  values: { STARTED: { description: 'A job was started.' }, SKIPPED: { description: 'No job was started.' } },
});

const ScheduleSkipCode = builder.enumType('ScheduleSkipCode', {
  description: 'Why a due time was skipped. New values may be added.',
  values: {
    MISSED: { description: 'No gateway could start it within `startingDeadlineSeconds`.' },
    PREVIOUS_RUNNING: { description: 'A job of the schedule had not ended, and it forbids overlaps.' },
    PAUSED: { description: 'The schedule was paused.' },
    CHANGED: { description: 'Its cron expression or time zone was changed before it was started.' },
    POLICY_VIOLATION: { description: 'The policy of the project forbade the job.' },
    INVALID_STATE: { description: 'The project took no job, e.g. since it was archived.' },
    INVALID_INPUT: { description: 'The template could not be submitted any more.' },
  } satisfies Record<(typeof skipCodes)[number], { description: string }>,
});

const ScheduleSkipReason = builder.objectRef<SkipReason>('ScheduleSkipReason').implement({
  description: 'Why a due time was skipped.',
  fields: (t) => ({
    code: t.expose('code', { type: ScheduleSkipCode, description: 'Machine-readable reason.' }),
    message: t.exposeString('message', { description: 'One sentence for people.' }),
  }),
});

const ScheduleRunRef = builder.objectRef<ScheduleRun>('ScheduleRun').implement({
  description:
    'What became of a due time of a schedule. Due times in a row that were skipped for one reason are one of these.',
  fields: (t) => ({
    dueAt: t.expose('dueAt', {
      type: 'DateTime',
      description: 'The due time; of several that were skipped the first.',
    }),
    lastDueAt: t.expose('lastDueAt', {
      type: 'DateTime',
      description: 'The last due time this stands for; `dueAt` when it is one.',
    }),
    decidedAt: t.expose('decidedAt', { type: 'DateTime', description: 'Timestamp of when it was started or skipped.' }),
    outcome: t.field({
      type: ScheduleRunOutcome,
      description: 'What became of it.',
      resolve: ({ jobId }) => (jobId === null ? 'SKIPPED' : 'STARTED'),
    }),
    reason: t.field({
      type: ScheduleSkipReason,
      nullable: true,
      description: 'Why it was skipped; null when a job was started.',
      resolve: ({ reasonCode, reasonMessage }) =>
        reasonCode === null ? null : { code: reasonCode as SkipReason['code'], message: reasonMessage ?? '' },
    }),
    job: t.field({
      type: JobRef,
      nullable: true,
      description: 'Job that was started; null when it was skipped.',
      resolve: ({ jobId }, _, context) => (jobId === null ? null : load(context, loadJobs, jobId)),
    }),
  }),
});

export const ScheduleRunConnection = connectionType('ScheduleRun', ScheduleRunRef, {
  plural: 'due times',
  noun: 'due time',
  description: 'A page of due times.',
  edgeDescription: 'A due time and its cursor.',
});

type PageArgs = Parameters<typeof readPageArgs>[0];

export async function runPage(context: Context, { id }: Schedule, args: PageArgs): Promise<Page<ScheduleRun>> {
  const request = readPageArgs(args, 100);
  const stream = `runs:${id}`;
  const position = (cursor: string | undefined) => {
    if (cursor === undefined) return undefined;
    const text = decodeText(stream, cursor);
    if (Number.isNaN(Date.parse(text)) || !/^2\d{3}-/.test(text)) throw cursorInvalid();
    return [text];
  };
  const [after, before] = [position(request.after), position(request.before)];
  const { limit, backward } = request;
  const page = { limit, backward, ...(after ? { after } : {}), ...(before ? { before } : {}) };
  const rows = await listRuns(context.database.db, id, page);
  return toPage(rows, request, (row) => encodeCursor(stream, [row.dueAt.toISOString()]));
}
