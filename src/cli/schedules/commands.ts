// The commands about schedules, with their flags.
import type { Command } from 'commander';
import { type AddCommand, withGlobals } from '../command.ts';
import { leafFields } from '../fields.ts';
import { collect, headerFlag } from '../flags.ts';
import { jobFields } from '../jobs/fields.ts';
import { cronFields, scheduleFields, schedulePageFields } from './fields.ts';

const load =
  <Name extends keyof typeof import('./schedules.ts')>(name: Name) =>
  async () =>
    (await import('./schedules.ts'))[name];
const schedule = ['<schedule>', 'name of the schedule, or its id (sch_…)'] as const;
const settings = [
  ['--cron <expression>', 'when: five fields, or @hourly, @daily, @weekly, @monthly'],
  ['--tz <zone>', 'time zone of the expression, e.g. Europe/Berlin (default: UTC)'],
  ['--name <name>', 'name of the schedule'],
  ['--on-overlap <what>', 'while its previous job runs: allow, forbid (default) or replace'],
  ['--starting-deadline <duration>', 'how late a missed run is still started, e.g. 1h'],
] as const;

export function addScheduleCommands(program: Command, add: AddCommand): void {
  const parent = withGlobals(program.command('schedules').description('submit jobs again and again, by the calendar'));
  add(parent, 'list', 'schedules of a project', scheduleFields, load('runSchedules'), { isDefault: true }).option(
    ...headerFlag,
  );
  const create = add(parent, 'create', 'create a schedule from a job spec', scheduleFields, load('runSchedulesCreate'))
    .requiredOption('-f, --file <file>', 'job spec, JSON or YAML, of which schedule: may say when; - is stdin')
    .option('--model <name>', 'model to train, over the file')
    .option('--dataset <uri>', 'dataset to train on, over the file')
    .option('--set <key=value>', 'any hyperparameter, or a dotted path of the spec, over the file (repeat)', collect)
    .option('--idempotency-key <key>', 'create once under this key, however often it is said');
  const update = add(
    parent,
    'update',
    'change a schedule; what is not said stays',
    scheduleFields,
    load('runSchedulesUpdate'),
  )
    .argument(...schedule)
    .option('-f, --file <file>', 'new job spec; - is stdin');
  for (const command of [create, update]) for (const [flags, about] of settings) command.option(flags, about);
  const show = 'show a schedule and what became of its last due times';
  add(parent, 'show', show, schedulePageFields, load('runSchedulesShow')).argument(...schedule);
  const pause = 'start no jobs until it is resumed';
  add(parent, 'pause', pause, scheduleFields, load('runSchedulesPause')).argument(...schedule);
  add(parent, 'resume', 'go on from now', scheduleFields, load('runSchedulesResume')).argument(...schedule);
  add(parent, 'trigger', 'submit a job of it now', jobFields, load('runSchedulesTrigger'))
    .argument(...schedule)
    .option('--idempotency-key <key>', 'submit once under this key, however often it is said');
  const deleted = leafFields('deletedId');
  add(parent, 'delete', 'delete it; its jobs stay', deleted, load('runSchedulesDelete')).argument(...schedule);
  add(parent, 'preview', 'a cron expression in words, and when it is due', cronFields, load('runSchedulesPreview'))
    .argument('<cron>', "expression, e.g. '0 2 * * 1-5'")
    .option('--tz <zone>', 'time zone of the expression (default: UTC)')
    .option('-n, --limit <count>', 'how many due times', '5');
}
