// `astraml defaults publish` and `use`: what administrators of the platform do to versions.
import type { Cli } from '../cli.ts';
import { exitCodes } from '../failure.ts';
import { defaultsFields, select } from '../fields.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { readSpecFile } from '../submit/spec-file.ts';

export type PublishOptions = { file: string; defaultsVersion: string; notes?: string; makeCurrent?: boolean };

type Defaults = { version: string; isCurrent: boolean; hash: string };
type Result = { defaults: Defaults } | Problem;

export async function runPublish(cli: Cli, options: PublishOptions): Promise<number> {
  const { file, defaultsVersion: version, notes, makeCurrent } = options;
  const input = { version, values: await readSpecFile(file), notes, makeCurrent };
  const mutation = `mutation($input: PublishDefaultsInput!) {
    publishDefaults(input: $input) { ... on PublishDefaultsPayload { defaults ${select(defaultsFields)} } ...Problem }
  } ${problemFragment}`;
  const { publishDefaults } = await cli.request<{ publishDefaults: Result }>(mutation, { input });
  return show(cli, publishDefaults);
}

export async function runUse(cli: Cli, _options: object, [version = '']: string[]): Promise<number> {
  const mutation = `mutation($input: SetCurrentDefaultsInput!) {
    setCurrentDefaults(input: $input) { ... on SetCurrentDefaultsPayload { defaults ${select(defaultsFields)} } ...Problem }
  } ${problemFragment}`;
  const variables = { input: { version } };
  const { setCurrentDefaults } = await cli.request<{ setCurrentDefaults: Result }>(mutation, variables);
  return show(cli, setCurrentDefaults);
}

async function show(cli: Cli, result: Result): Promise<number> {
  if (!('defaults' in result)) throw refusedBy(result);
  const { version, isCurrent, hash } = result.defaults;
  if (cli.out.json) await cli.out.printJson(result.defaults);
  else await cli.out.print(`${version} ${isCurrent ? 'current' : 'published'} ${hash}`);
  if (!isCurrent) cli.out.note(`Nobody gets it yet: astraml defaults use ${version} makes it current.`);
  return exitCodes.done;
}
