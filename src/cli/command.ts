// What all commands have in common: how one is added, the flags that each of them takes.
import { type Command, Help, Option } from 'commander';
import type { Cli } from './cli.ts';
import type { Fields } from './fields.ts';

/** What a command does: its exit code comes back. `options` are its own flags as commander read them. */
type Run<Options> = (cli: Cli, options: Options, operands: string[]) => Promise<number>;

/**
 * Adds a command. `fields` are what `--json` can print; null for a command without JSON. `load`
 * runs at the call: it imports the work where that is large, e.g. of `jobs`.
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

/** The flags that every command takes, before or after its name. `local` commands talk to no gateway that runs. */
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

/** The help with the global flags at its end. */
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
