// The flags of `astraml init`.
import type { Command } from 'commander';
import type { AddCommand } from '../command.ts';
import type { InitOptions } from './init.ts';

export function addInitCommand(program: Command, add: AddCommand): void {
  add<InitOptions>(
    program,
    'init',
    'write job.yaml, a job spec to start from',
    () => ['path', 'example'],
    async () => {
      const { runInit } = await import('./init.ts');
      return (cli, options) => runInit(cli, options);
    },
  )
    .option('--example <name>', 'fine-tuning (default), image-classification, large-batch or hourly-retraining')
    .option('--force', 'replace a job.yaml that is there');
}
