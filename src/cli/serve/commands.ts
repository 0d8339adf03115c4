// The commands that run a gateway or a runner on this machine, with their flags.
import type { Command } from 'commander';
import type { AddCommand } from '../command.ts';
import { collect, toWhole } from '../flags.ts';
import type { DevOptions } from './dev.ts';
import type { RunnerStartOptions } from './runner.ts';

const placesText = 'jobs that run at once, with and without GPUs (default: two for each GPU, at least 4)';

export function addServerCommands(program: Command, add: AddCommand): void {
  add<DevOptions>(program, 'dev', 'run a gateway and a runner on this machine', null, async () => {
    const { runDev } = await import('./dev.ts');
    return (_cli, options) => runDev(options);
  })
    .option('--port <port>', 'port to listen on (default: PORT, else 4000)', toWhole('--port', 65_535))
    .option('--data-dir <folder>', 'where its data is kept (default: ASTRAML_DATA_DIR, else .astraml)')
    .option('--gpus <count>', 'GPUs of the runner, virtual where there are none', toWhole('--gpus', 1_024))
    .option('--places <count>', placesText, toWhole('--places', 1_000, 1));
  const demo = 'see it work: a job from submission to its end, in a temporary folder';
  add(program, 'demo', demo, null, async () => (await import('./demo.ts')).runDemo);
  const serve = 'run the gateway alone, on DATABASE_URL and REDIS_URL';
  add(program, 'serve', serve, null, async () => (await import('./serve.ts')).runServe);
  addRunnerCommands(program, add);
}

function addRunnerCommands(program: Command, add: AddCommand): void {
  const runner = program.command('runner').description('make this machine take jobs');
  add<RunnerStartOptions>(runner, 'start', 'take jobs until a signal drains it', null, async () => {
    const { runRunner } = await import('./runner.ts');
    return (_cli, options) => runRunner(options);
  })
    .option('--name <name>', 'name of the runner (default: ASTRAML_RUNNER_NAME, else the host name)')
    .option('--label <label>', 'label that jobs can ask for; repeat for more', collect)
    .option('--gpus <count>', 'GPUs to use at most, virtual where there are none', toWhole('--gpus', 64))
    .option('--places <count>', placesText, toWhole('--places', 1_000, 1))
    .option('--work-dir <folder>', 'its files (default: ASTRAML_RUNNER_WORK_DIR, else /var/lib/astraml)')
    .option('--grace <seconds>', 'between SIGTERM and SIGKILL (default: 30)', toWhole('--grace', 3_600))
    .option('--drain-timeout <seconds>', 'how long a drain waits (default: 3600)', toWhole('--drain-timeout', 1e9))
    .option('--token-file <file>', 'file with its token (default: ASTRAML_RUNNER_TOKEN_FILE)')
    .option('--isolate <what>', 'users: a uid of its own for each project; as root only (default: none)')
    .option('--when-cut <what>', 'when no gateway is heard: continue or stop (default: continue)')
    .option(
      '--spool-bytes <bytes>',
      'disk for what an attempt could not send yet (default: 1 GiB)',
      toWhole('--spool-bytes', 1e15),
    );
}
