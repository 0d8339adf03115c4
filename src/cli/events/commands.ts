// The command about who did what, with its flags.
import type { Command } from 'commander';
import { type AddCommand, collect } from '../command.ts';
import type { EventsOptions } from './events.ts';

/** What is asked of an event; the names are those of `--json=`. */
export const eventFields = {
  id: '',
  type: '',
  time: '',
  actor: '{ id name }',
  job: '{ id number }',
  message: '',
  data: '',
};

export function addEventsCommand(program: Command, add: AddCommand): void {
  add<EventsOptions>(
    program,
    'events',
    'who did what: to a job, a project or the platform, oldest first',
    () => Object.keys(eventFields),
    async () => (await import('./events.ts')).runEvents,
  )
    .argument('[job]', 'number (42, p-demo/42), id (job_…) or @last (default: the whole project)')
    .option('--since <when>', 'only since, e.g. 24h, 2026-11-23 or 2026-11-23T12:00:00Z')
    .option('--type <type>', 'only of this type, e.g. token-created (repeat)', collect)
    .option('-n, --limit <count>', 'how many of the newest (default: 50; with --since: all)')
    .option('-a, --all', 'all of them')
    .option('--platform', 'those of the whole platform instead: tokens for all projects, defaults')
    .option('--header', 'print the header also where no terminal reads');
}
