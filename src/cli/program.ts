// The command line: every command, in the order of the help. Code that is slow to load is imported
// when its command runs, so that `--help` is fast.
import { Command, CommanderError } from 'commander';
import { version } from '../version.ts';
import type { Globals } from './cli.ts';
import { type AddCommand, withGlobals } from './command.ts';
import { addDefaultsCommands } from './defaults.ts';
import { addEventsCommand } from './events.ts';
import { allUsage, exitCodes, explain, usage } from './failure.ts';
import { flagChecks } from './flags.ts';
import { addInitCommand } from './init.ts';
import { addJobCommands } from './jobs/commands.ts';
import { addPolicyCommands } from './policies.ts';
import { addProjectCommands } from './projects.ts';
import { addRunnersCommands } from './runners.ts';
import { addScheduleCommands } from './schedules/commands.ts';
import { addSecretCommands } from './secrets.ts';
import { addServerCommands } from './serve/commands.ts';
import { addSubmitCommand } from './submit.ts';
import { cleanText } from './text.ts';
import { addTokenCommands } from './tokens.ts';

/**
 * Runs a command line (without `node` and the script) and resolves with its exit code once all
 * messages are printed.
 */
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
    // commander has printed the error itself; help and version are no errors
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.done : exitCodes.usage;
    const failure = explain(error, beforeDashes(argv).includes('--debug'));
    process.stderr.write(`${failure.text}\n`);
    return failure.exitCode;
  }
}

/**
 * Turns `--json` into `--json=*`: it takes fields only after `=`, so that the next word is not
 * taken for one.
 */
function bareJson(argv: readonly string[]): string[] {
  const own = beforeDashes(argv);
  return [...own.map((arg) => (arg === '--json' ? '--json=*' : arg)), ...argv.slice(own.length)];
}

function beforeDashes(argv: readonly string[]): readonly string[] {
  const at = argv.indexOf('--');
  return at < 0 ? argv : argv.slice(0, at);
}

/** All commands; `setExitCode` gets the exit code of the one that runs. */
export function createProgram(setExitCode: (code: number) => void): Command {
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
      allUsage(flagChecks);
      const globals = globalsOf(command);
      if (globals.color === false) forbidColour();
      const names = Object.keys((typeof fields === 'function' ? fields(command.opts()) : fields) ?? {});
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

/**
 * Returns the global flags, wherever they stand. A flag after the subcommand beats the same flag
 * before it.
 */
function globalsOf(command: Command): Globals {
  const levels: Globals[] = [];
  for (let level: Command | null = command; level; level = level.parent) levels.unshift(level.opts<Globals>());
  const presentFlags = levels.flatMap((level) => Object.entries(level).filter(([, value]) => value !== undefined));
  // commander sets a flag that begins with `no-` to true when it is absent.
  return { ...Object.fromEntries(presentFlags), color: levels.every(({ color }) => color !== false) };
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
