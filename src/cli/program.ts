// The command line: every command with its flags, in the order of the help. What a command does is loaded when it is
// called, so that `--help` is fast.
import { Command, CommanderError } from 'commander';
import { version } from '../version.ts';
import type { Globals } from './cli.ts';
import { type AddCommand, withGlobals } from './command.ts';
import { allUsage, explain, exitCodes, usage } from './failure.ts';
import { addInitCommand } from './init/commands.ts';
import { addDefaultsCommands } from './defaults/commands.ts';
import { addEventsCommand } from './events/commands.ts';
import { addJobCommands } from './jobs/commands.ts';
import { addPolicyCommands } from './policies/commands.ts';
import { addProjectCommands } from './projects/commands.ts';
import { addRunnersCommands } from './runners/commands.ts';
import { addTokenCommands } from './tokens/commands.ts';
import { addSecretCommands } from './secrets/commands.ts';
import { addScheduleCommands } from './schedules/commands.ts';
import { addSubmitCommand } from './submit/commands.ts';
import { cleanText } from './text.ts';
import type { DevOptions } from './serve/dev.ts';
import type { RunnerStartOptions } from './serve/runner.ts';

/** Runs a command line (without `node` and the script) and resolves with its exit code. Everything is said by then. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  let exitCode: number = exitCodes.done;
  const program = createProgram((code) => (exitCode = code));
  const args = bareJson(argv);
  if (args.length === 0) {
    program.outputHelp();
    return exitCodes.done;
  }
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    // commander has said itself what it found; help and version are no error
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.done : exitCodes.usage;
    const failure = explain(error, beforeDashes(argv).includes('--debug'));
    process.stderr.write(`${failure.text}\n`);
    return failure.exitCode;
  }
}

/** `--json` takes its fields only with `=`: the word after it is not its own. */
function bareJson(argv: readonly string[]): string[] {
  const own = beforeDashes(argv);
  return [...own.map((arg) => (arg === '--json' ? '--json=*' : arg)), ...argv.slice(own.length)];
}

function beforeDashes(argv: readonly string[]): readonly string[] {
  const at = argv.indexOf('--');
  return at < 0 ? argv : argv.slice(0, at);
}

/** What is wrong with flags of the command line that is read, to be named together. */
let mistakes: (() => never)[] = [];

function createProgram(setExitCode: (code: number) => void): Command {
  mistakes = [];
  const program = new Command('astraml')
    .description('Submit ML training jobs, follow their logs and metrics live.')
    .version(version, '--version', 'print the version')
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ writeErr: (text) => process.stderr.write(cleanText(text)) })
    .showHelpAfterError('  hint  Add --help for what there is.');
  const add: AddCommand = (parent, usageText, description, fields, load, options = {}) => {
    const command = withGlobals(parent.command(usageText, options).description(description), {
      local: fields === null,
    });
    command.action(async () => {
      allUsage(mistakes);
      const globals = globalsOf(command);
      if (globals.color === false) forbidColour();
      const names = fields?.(command.opts()) ?? [];
      if (globals.json === '') return listFields(names);
      const chosen = globals.json === undefined ? null : chooseFields(globals.json, names);
      const [{ openCli }, run] = await Promise.all([import('./cli.ts'), load()]);
      setExitCode(await run(openCli(globals, chosen), command.opts(), command.args));
    });
    return command;
  };
  withGlobals(program);
  addServerCommands(program, add);
  addInitCommand(program, add);
  addSubmitCommand(program, add);
  addJobCommands(program, add);
  addEventsCommand(program, add);
  addDefaultsCommands(program, add);
  addScheduleCommands(program, add);
  addPolicyCommands(program, add);
  addProjectCommands(program, add);
  addTokenCommands(program, add);
  addRunnersCommands(program, add);
  addSecretCommands(program, add);
  return program;
}

const placesText = 'jobs that run at once, with and without GPUs (default: two for each GPU, at least 4)';

function addServerCommands(program: Command, add: AddCommand): void {
  add<DevOptions>(program, 'dev', 'run a gateway and a runner on this machine', null, async () => {
    const { runDev } = await import('./serve/dev.ts');
    return (_cli, options) => runDev(options);
  })
    .option('--port <port>', 'port to listen on (default: PORT, else 4000)', toWhole('--port', 65_535))
    .option('--data-dir <folder>', 'where its data is kept (default: ASTRAML_DATA_DIR, else .astraml)')
    .option('--gpus <count>', 'GPUs of the runner, virtual where there are none', toWhole('--gpus', 1_024))
    .option('--places <count>', placesText, toWhole('--places', 1_000, 1));
  add(program, 'demo', 'see it work: a job from submission to its end, in a temporary folder', null, async () => {
    const { runDemo } = await import('./serve/demo.ts');
    return () => runDemo();
  });
  add(program, 'serve', 'run the gateway alone, on DATABASE_URL and REDIS_URL', null, async () => {
    const { runServe } = await import('./serve/serve.ts');
    return () => runServe();
  });
  addRunnerCommands(program, add);
}

function addRunnerCommands(program: Command, add: AddCommand): void {
  const runner = program.command('runner').description('make this machine take jobs');
  const each = (value: string, before: string[] = []) => [...before, value];
  add<RunnerStartOptions>(runner, 'start', 'take jobs until a signal drains it', null, async () => {
    const { runRunner } = await import('./serve/runner.ts');
    return (_cli, options) => runRunner(options);
  })
    .option('--name <name>', 'name of the runner (default: ASTRAML_RUNNER_NAME, else the host name)')
    .option('--label <label>', 'label that jobs can ask for; repeat for more', each)
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

function toWhole(flag: string, max: number, min = 0): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (/^\d+$/.test(text) && number >= min && number <= max) return number;
    mistakes.push(() => {
      throw usage(`${flag} takes a whole number from ${min} to ${max}, got "${text}".`);
    });
    return NaN;
  };
}

/** The global flags, wherever they stand; the one nearest to the command's end counts. */
function globalsOf(command: Command): Globals {
  const levels: Globals[] = [];
  for (let at: Command | null = command; at; at = at.parent) levels.unshift(at.opts<Globals>());
  const given = levels.flatMap((level) => Object.entries(level).filter(([, value]) => value !== undefined));
  // commander gives a flag that begins with no- the value true where it is absent
  return { ...Object.fromEntries(given), color: levels.every(({ color }) => color !== false) };
}

function forbidColour(): void {
  delete process.env['FORCE_COLOR'];
  process.env['NO_COLOR'] = '1';
}

function listFields(names: readonly string[]): void {
  process.stdout.write(names.map((name) => `${name}\n`).join(''));
}

function chooseFields(text: string, names: readonly string[]): readonly string[] {
  if (text === '*') return names;
  const chosen = text.split(',').map((name) => name.trim());
  const unknown = chosen.find((name) => !names.includes(name));
  if (unknown === undefined) return chosen;
  throw usage(`--json: there is no field "${unknown}" here.`, `Fields: ${names.join(', ')}.`);
}
