// The commands about a project's secrets, with their flags. None takes a value: what stands on a command line is kept by
// the shell and seen in every list of processes.
import type { Command } from 'commander';
import { type AddCommand, withGlobals } from '../command.ts';
import { secretFields } from '../fields.ts';
import type { SecretListOptions, SecretSetOptions } from './secrets.ts';

const load = () => import('./secrets.ts');
const secretNames = () => Object.keys(secretFields);

export function addSecretCommands(program: Command, add: AddCommand): void {
  const secrets = withGlobals(
    program.command('secrets').description("set a project's secrets; nobody reads them back"),
  );
  add<SecretListOptions>(
    secrets,
    'list',
    'names, versions and last use',
    secretNames,
    async () => (await load()).runSecrets,
    { isDefault: true },
  ).option('--header', 'print the header also where no terminal reads');
  add<SecretSetOptions>(
    secrets,
    'set',
    'set the value: typed unseen, or read from stdin, of which one line end at its end is dropped',
    secretNames,
    async () => (await load()).runSecretsSet,
  )
    .argument('<name>', 'upper-case letters, digits and underscores, e.g. HF_TOKEN')
    .option('--from-env <variable>', 'take the value of this environment variable, as it is');
  add<object>(
    secrets,
    'delete',
    'delete a secret for ever',
    () => ['deletedId'],
    async () => (await load()).runSecretsDelete,
  ).argument('<name>', 'name of the secret');
}
