// `astraml secrets`: the secrets of a project's jobs. A value comes from a hidden prompt, from
// stdin or from a variable, and is never printed. No flag takes it, because shells keep command
// lines and lists of processes show them.
import { buffer } from 'node:stream/consumers';
import type { Command } from 'commander';
import type { Cli } from './cli.ts';
import { type AddCommand, withGlobals } from './command.ts';
import { exitCodes, Failure, usage } from './failure.ts';
import { leafFields, select } from './fields.ts';
import { headerFlag } from './flags.ts';
import { printWarnings, type Problem, problemFragment, refusedBy } from './problem.ts';
import { cleanText, formatAge } from './text.ts';

const secretFields = leafFields('id name version createdAt updatedAt lastUsedAt');

type Secret = { id: string; name: string; version: number; updatedAt: string; lastUsedAt: string | null };

export function addSecretCommands(program: Command, add: AddCommand): void {
  const about = "set a project's secrets; nobody reads them back";
  const secrets = withGlobals(program.command('secrets').description(about));
  add(secrets, 'list', 'names, versions and last use', secretFields, () => runSecrets, { isDefault: true }).option(
    ...headerFlag,
  );
  const set = 'set the value: typed unseen, or read from stdin, of which one line end at its end is dropped';
  add(secrets, 'set', set, secretFields, () => runSecretsSet)
    .argument('<name>', 'upper-case letters, digits and underscores, e.g. HF_TOKEN')
    .option('--from-env <variable>', 'take the value of this environment variable, as it is');
  add(secrets, 'delete', 'delete a secret for ever', leafFields('deletedId'), () => runSecretsDelete).argument(
    '<name>',
    'name of the secret',
  );
}

async function runSecrets(cli: Cli, options: { header?: boolean }): Promise<number> {
  const projectId = cli.requireProject();
  const query = `query($projectId: ID!) { project(id: $projectId) { secrets ${select(secretFields)} } }`;
  const { project } = await cli.request<{ project: { secrets: Secret[] | null } | null }>(query, { projectId });
  if (!project) {
    throw new Failure(exitCodes.notFound, `Project ${projectId} does not exist, or you may not see it.`);
  }
  const { secrets } = project;
  if (!secrets) {
    throw new Failure(
      exitCodes.notAllowed,
      `You may not see the secrets of ${projectId}.`,
      'This needs a token with scope WRITE.',
    );
  }
  if (cli.out.json) await cli.out.printJson(secrets);
  else if (secrets.length > 0) {
    const rows = secrets.map((secret) => [
      secret.name,
      String(secret.version),
      age(cli, secret.updatedAt),
      secret.lastUsedAt === null ? 'never' : age(cli, secret.lastUsedAt),
    ]);
    await cli.out.table(['NAME', 'VERSION', 'SET', 'LAST USED'], rows, options);
  } else cli.out.note(`${projectId} has no secrets.`);
  return exitCodes.done;
}

/** Returns the age of a time on a terminal, the time itself for programs. */
function age(cli: Cli, time: string): string {
  return cli.out.tty ? formatAge(time, Date.now()) : time;
}

async function runSecretsSet(cli: Cli, { fromEnv }: { fromEnv?: string }, [name = '']: string[]): Promise<number> {
  const projectId = cli.requireProject();
  if (fromEnv === undefined) cli.nameServer(); // before the prompt for the value
  const value = fromEnv === undefined ? await readValue(name) : fromVariable(fromEnv);
  const mutation = `mutation($input: SetSecretInput!) {
    setSecret(input: $input) { __typename ... on SecretPayload { secret ${select(secretFields)} warnings { message } } ...Problem }
  } ${problemFragment}`;
  type Payload = { __typename: 'SecretPayload'; secret: Secret; warnings: { message: string }[] };
  const { setSecret: result } = await cli.request<{ setSecret: Payload | Problem }>(mutation, {
    input: { projectId, name, value },
  });
  if (!('secret' in result)) throw refusedBy(result);
  printWarnings(cli, result.warnings);
  if (cli.out.json) await cli.out.printJson(result.secret);
  else await cli.out.print(`${result.secret.name} version ${result.secret.version}`);
  return exitCodes.done;
}

async function runSecretsDelete(cli: Cli, _options: object, [name = '']: string[]): Promise<number> {
  const mutation = `mutation($input: DeleteSecretInput!) {
    deleteSecret(input: $input) { __typename ... on DeletePayload { deletedId } ...Problem }
  } ${problemFragment}`;
  type Payload = { __typename: 'DeletePayload'; deletedId: string };
  const input = { projectId: cli.requireProject(), name };
  // Not repeated: after a lost answer a repeat would get NOT_FOUND, which hides whether this
  // command deleted the secret.
  const { deleteSecret: result } = await cli.request<{ deleteSecret: Payload | Problem }>(
    mutation,
    { input },
    { repeatable: false },
  );
  if (!('deletedId' in result)) throw refusedBy(result);
  if (cli.out.json) await cli.out.printJson(result);
  else await cli.out.print(`${name} deleted`);
  return exitCodes.done;
}

function fromVariable(variable: string): string {
  const value = process.env[variable];
  if (value) return value;
  throw usage(`The environment variable ${variable} is ${value === undefined ? 'not set' : 'empty'}.`);
}

function readValue(name: string): Promise<string> {
  return process.stdin.isTTY ? askValue(name) : readStdin();
}

async function askValue(name: string): Promise<string> {
  const { isCancel, password } = await import('@clack/prompts');
  const value = await password({ message: `Value of ${cleanText(name)}`, output: process.stderr });
  if (isCancel(value)) throw new Failure(exitCodes.detached, 'Nothing was set.');
  if (value) return value;
  throw usage('The value is empty: nothing was set.');
}

async function readStdin(): Promise<string> {
  const bytes = await buffer(process.stdin);
  const text = decode(bytes).replace(/\r?\n$/, ''); // line end that echo and editors add
  if (text !== '') return text;
  throw usage('stdin is empty: nothing was set.', 'For example: printf %s "$TOKEN" | astraml secrets set NAME');
}

function decode(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw usage('stdin is not UTF-8 text.', 'Encode bytes as text first, e.g. with base64.');
  }
}
