// The commands about schedules, with their flags.
import type { Command } from 'commander';
import { type AddCommand, collect, withGlobals } from '../command.ts';
import { cronFields, jobFields, scheduleFields, schedulePageFields } from '../fields.ts';
import type {
  CronPreviewOptions,
  ScheduleCreateOptions,
  ScheduleListOptions,
  ScheduleUpdateOptions,
} from './schedules.ts';

const load = () => import('./schedules.ts');
const scheduleNames = () => Object.keys(scheduleFields);
const operand = 'name of the schedule, or its id (sch_…)';
const settings = [
  ['--cron <expression>', 'when: five fields, or @hourly, @daily, @weekly, @monthly'],
  ['--tz <zone>', 'time zone of the expression, e.g. Europe/Berlin (default: UTC)'],
  ['--name <name>', 'name of the schedule'],
  ['--on-overlap <what>', 'while its previous job runs: allow, forbid (default) or replace'],
  ['--starting-deadline <duration>', 'how late a missed run is still started, e.g. 1h'],
] as const;

export function addScheduleCommands(program: Command, add: AddCommand): void {
  const parent = withGlobals(program.command('schedules').description('submit jobs again and again, by the calendar'));
  add<ScheduleListOptions>(
    parent,
    'list',
    'schedules of a project',
    scheduleNames,
    async () => (await load()).runSchedules,
    {
      isDefault: true,
    },
  ).option('--header', 'print the header also where no terminal reads');
  const create = add<ScheduleCreateOptions>(
    parent,
    'create',
    'create a schedule from a job spec',
    scheduleNames,
    async () => (await load()).runSchedulesCreate,
  )
    .requiredOption('-f, --file <file>', 'job spec, JSON or YAML, of which schedule: may say when; - is stdin')
    .option('--model <name>', 'model to train, over the file')
    .option('--dataset <uri>', 'dataset to train on, over the file')
    .option('--set <key=value>', 'any hyperparameter, or a dotted path of the spec, over the file (repeat)', collect)
    .option('--idempotency-key <key>', 'create once under this key, however often it is said');
  const update = add<ScheduleUpdateOptions>(
    parent,
    'update',
    'change a schedule; what is not said stays',
    scheduleNames,
    async () => (await load()).runSchedulesUpdate,
  )
    .argument('<schedule>', operand)
    .option('-f, --file <file>', 'new job spec; - is stdin');
  for (const command of [create, update]) for (const [flags, about] of settings) command.option(flags, about);
  add(
    parent,
    'show',
    'show a schedule and what became of its last due times',
    () => Object.keys(schedulePageFields),
    async () => (await load()).runSchedulesShow,
  ).argument('<schedule>', operand);
  add(
    parent,
    'pause',
    'start no jobs until it is resumed',
    scheduleNames,
    async () => (await load()).runSchedulesPause,
  ).argument('<schedule>', operand);
  add(parent, 'resume', 'go on from now', scheduleNames, async () => (await load()).runSchedulesResume).argument(
    '<schedule>',
    operand,
  );
  add<{ idempotencyKey?: string }>(
    parent,
    'trigger',
    'submit a job of it now',
    () => Object.keys(jobFields),
    async () => (await load()).runSchedulesTrigger,
  )
    .argument('<schedule>', operand)
    .option('--idempotency-key <key>', 'submit once under this key, however often it is said');
  add(
    parent,
    'delete',
    'delete it; its jobs stay',
    () => ['deletedId'],
    async () => (await load()).runSchedulesDelete,
  ).argument('<schedule>', operand);
  add<CronPreviewOptions>(
    parent,
    'preview',
    'a cron expression in words, and when it is due',
    () => Object.keys(cronFields),
    async () => (await load()).runSchedulesPreview,
  )
    .argument('<cron>', "expression, e.g. '0 2 * * 1-5'")
    .option('--tz <zone>', 'time zone of the expression (default: UTC)')
    .option('-n, --limit <count>', 'how many due times', '5');
}
