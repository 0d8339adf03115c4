// The commands about the machines that take jobs, with their flags.
import type { Command } from 'commander';
import { type AddCommand, withGlobals } from '../command.ts';
import type { RunnerListOptions } from './runners.ts';

/** What is asked of a runner; the names are those of `--json=`. */
export const runnerFields = {
  id: '',
  name: '',
  state: '',
  gpus: '{ index model memoryBytes busy }',
  places: '',
  placesBusy: '',
  labels: '',
  projects: '{ id }',
  version: '',
  lastSeenAt: '',
};

export function addRunnersCommands(program: Command, add: AddCommand): void {
  const runners = withGlobals(program.command('runners').description('machines that take jobs'));
  add<RunnerListOptions>(
    runners,
    'list',
    'runners with their GPUs and places',
    () => Object.keys(runnerFields),
    async () => (await import('./runners.ts')).runRunners,
    { isDefault: true },
  ).option('--header', 'print the header also where no terminal reads');
}
