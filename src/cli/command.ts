// Adds commands and the flags that every command takes.
import { type Command, Help, Option } from 'commander';
import type { Cli } from './cli.ts';
import type { Fields } from './fields.ts';

/**
 * Runs a command and resolves with its exit code. `options` are its own flags as commander parsed
 * them.
 */
type Run<Options> = (cli: Cli, options: Options, operands: string[]) => Promise<number>;

/**
 * Adds a command. `fields` are the fields that `--json` can print; null for a command without JSON.
 * `load` imports the code of the command when it is called, so that help does not load large parts
 * such as `jobs`.
 */
export type AddCommand = <Options extends object>(
  parent: Command,
  usage: string,
  description: string,
  fields: Fields | ((options: Options) => Fields) | null,
  load: () => Run<Options> | Promise<Run<Options>>,
  options?: { isDefault?: boolean },
) => Command;

const globalGroup = 'Global options:';

/**
 * Adds the global flags, which may stand before or after the name of a command. A `local` command,
 * e.g. `dev`, talks to no running gateway and gets only some of them.
 */
export function withGlobals(command: Command, { local = false } = {}): Command {
  const remote = [
    new Option('-p, --project <id>', 'project, e.g. p-demo'),
    new Option('--server <url>', 'address of the gateway'),
    new Option('--json [fields]', 'print JSON; --json=id,state selects, --json= lists the fields'),
    new Option('-q, --quiet', 'no progress and no hints on stderr'),
    new Option('--no-color', 'no colours'),
  ];
  const options = [...(local ? [] : remote), new Option('--debug', 'show the stack of an error')];
  for (const option of options) command.addOption(option.helpGroup(globalGroup));
  command.createHelp = () => new GlobalsLast();
  return command.addHelpOption(new Option('-h, --help', 'show this help').helpGroup(globalGroup));
}

/** Help that lists the global flags last. */
class GlobalsLast extends Help {
  override groupItems<Item extends Command | Option>(
    unsorted: Item[],
    visible: Item[],
    groupOf: (item: Item) => string,
  ): Map<string, Item[]> {
    const groups = super.groupItems(unsorted, visible, groupOf);
    const globals = groups.get(globalGroup);
    if (globals && groups.delete(globalGroup)) groups.set(globalGroup, globals);
    return groups;
  }
}
