// Creates a schedule, for `schedules create`, and for `submit` with a cron expression in file or
// flags.
import type { Cli } from '../cli.ts';
import { exitCodes } from '../failure.ts';
import { select } from '../fields.ts';
import { cell } from '../output.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { type Schedule, scheduleFields } from './fields.ts';
import type { ScheduleInput } from './input.ts';

const mutation = `mutation($input: CreateScheduleInput!) {
  createSchedule(input: $input) {
    __typename
    ... on CreateSchedulePayload { replayed schedule ${select(scheduleFields)} }
    ...Problem
  }
} ${problemFragment}`;

export async function sendSchedule(
  cli: Cli,
  { spec, schedule, idempotencyKey }: { spec: object; schedule: ScheduleInput; idempotencyKey: string | undefined },
): Promise<number> {
  const input = { ...schedule, spec, idempotencyKey: idempotencyKey ?? `cli-${crypto.randomUUID()}` };
  type Payload = { __typename: 'CreateSchedulePayload'; schedule: Schedule; replayed: boolean };
  const { createSchedule: result } = await cli.request<{ createSchedule: Payload | Problem }>(
    mutation,
    { input },
    { patient: true },
  );
  if (!('schedule' in result)) throw refusedBy(result);
  if (result.replayed) cli.out.note('This idempotency key was used before: it is the same schedule, not a new one.');
  await printSchedule(cli, result.schedule);
  if (!cli.out.json && cli.out.tty) cli.out.note(`${cell(result.schedule.description)}, ${result.schedule.timezone}`);
  return exitCodes.done;
}

/**
 * Prints a schedule as one line or as JSON. `submit --json=` names fields of a job, so it prints
 * all fields of the schedule.
 */
export async function printSchedule(cli: Cli, schedule: Schedule): Promise<void> {
  const { json } = cli.out;
  if (json?.every((name) => name in scheduleFields)) return cli.out.printJson(schedule);
  if (json) return cli.out.print(JSON.stringify(schedule));
  const { id, name, project, nextRuns, pausedAt } = schedule;
  const next = pausedAt ? 'paused' : nextRuns[0] ? `next ${nextRuns[0]}` : 'never due again';
  await cli.out.print(`${id} ${project.id} ${cell(name)} ${next}`);
}
