// `astraml defaults` shows the values that a job gets without a spec of its own, with -p those of
// that project, and publishes versions. `astraml migrate` shows the values that a job spec would
// get from another version.
import type { Command } from 'commander';
import { closest } from '../closest.ts';
import type { Cli } from './cli.ts';
import { type AddCommand, withGlobals } from './command.ts';
import { exitCodes, Failure } from './failure.ts';
import { leafFields, select } from './fields.ts';
import { headerFlag } from './flags.ts';
import { cell } from './output.ts';
import { type Problem, problemFragment, refusedBy } from './problem.ts';
import { type Json, readSpecFile, requireSpec, setPath } from './spec-file.ts';
import { mergeSpec } from './spec-flags.ts';
import { printValues, type Value, valueFields } from './values.ts';

const defaultsFields = leafFields('version isCurrent publishedAt hash notes');
const changeFields = leafFields('path from to');
const migrationFields = leafFields('path before after pinned changes');

type ShowOptions = { version?: string; yaml?: boolean; header?: boolean };
type PublishOptions = { file: string; defaultsVersion: string; notes?: string; makeCurrent?: boolean };
type MigrateOptions = { file: string; from: string; to?: string; header?: boolean };

type Version = { version: string; isCurrent: boolean; publishedAt: string; hash: string; notes: string | null };

export function addDefaultsCommands(program: Command, add: AddCommand): void {
  const defaults = withGlobals(program.command('defaults').description('show what a job gets when nobody says'));
  const show = 'values of a version; with -p those of the project';
  add(defaults, 'show', show, valueFields, () => runShow, { isDefault: true })
    .argument('[version]', 'version, e.g. v2.1 (default: the current one)')
    .option('--version <version>', 'the same as a flag')
    .option('--yaml', 'print the values as a file to be changed and published')
    .option(...headerFlag);
  add(defaults, 'list', 'published versions', defaultsFields, () => runList).option(...headerFlag);
  add(defaults, 'diff', 'what differs between two versions', changeFields, () => runDiff)
    .argument('<from>', 'older version, e.g. v2.1')
    .argument('<to>', 'newer version, e.g. v2.2')
    .option(...headerFlag);
  add(defaults, 'publish', 'publish a version; nobody gets it until it is current', defaultsFields, () => runPublish)
    .requiredOption('-f, --file <file>', 'values as in a job spec, JSON or YAML; - is stdin (see show --yaml)')
    .requiredOption('--defaults-version <version>', 'the new version, e.g. v2.2')
    .option('--notes <text>', 'for people who migrate, in Markdown')
    .option('--make-current', 'specs that name no version get it from now on');
  const use = 'make a published version current: specs that name none get it';
  add(defaults, 'use', use, defaultsFields, () => runUse).argument('<version>', 'version, e.g. v2.2');
  const migrate = 'show what moving a job spec to another version of the defaults would change';
  add(program, 'migrate', migrate, migrationFields, () => runMigrate)
    .requiredOption('-f, --file <file>', 'job spec, JSON or YAML; - is stdin')
    .requiredOption('--from <version>', 'version it relies on now, e.g. v1.4; may be one that is not published')
    .option('--to <version>', 'version to move to (default: the current one)')
    .option(...headerFlag);
}

async function runShow(cli: Cli, options: ShowOptions, [operand]: string[]): Promise<number> {
  const project = cli.globals.project;
  const version = operand ?? options.version;
  const values = project ? await effective(cli, project, version) : await published(cli, version);
  if (options.yaml) await printYaml(cli, values);
  else if (cli.out.json) await cli.out.printJson(values);
  else await printValues(cli, values, options);
  return exitCodes.done;
}

async function effective(cli: Cli, project: string, version: string | undefined): Promise<Value[]> {
  const query = `query($project: ID!, $version: String) {
    project(id: $project) { effectiveDefaults(version: $version) ${select(valueFields)} }
  }`;
  const answer = await cli.request<{ project: { effectiveDefaults: Value[] } | null }>(query, { project, version });
  if (answer.project) return answer.project.effectiveDefaults;
  throw new Failure(exitCodes.notFound, `Project ${project} does not exist, or you may not see it.`);
}

async function published(cli: Cli, version: string | undefined): Promise<Value[]> {
  const query = `query($version: String) {
    defaults(version: $version) { values ${select(valueFields)} }
    defaultsVersions { version }
  }`;
  const answer = await cli.request<{ defaults: { values: Value[] } | null; defaultsVersions: { version: string }[] }>(
    query,
    { version },
  );
  if (answer.defaults) return answer.defaults.values;
  throw notPublished(version ?? '', answer.defaultsVersions);
}

function notPublished(version: string, published: { version: string }[]): Failure {
  const versions = published.map((item) => item.version);
  const near = closest(version, versions);
  const hint = near ? `Did you mean "${near}"?` : `Published: ${versions.join(', ')}.`;
  return new Failure(exitCodes.notFound, `Defaults ${version} are not published.`, hint);
}

/** Prints values nested as in a job spec file, which `defaults publish -f` takes. */
async function printYaml(cli: Cli, values: Value[]): Promise<void> {
  const { stringify } = await import('yaml');
  const nested: Json = {};
  for (const { path, value } of values) setPath(nested, path.split('.'), value);
  await cli.out.print(stringify(nested).trimEnd());
}

type Change = { path: string; from: unknown; to: unknown };

async function runDiff(cli: Cli, options: { header?: boolean }, [from = '', to = '']: string[]) {
  const { defaultsVersions } = await cli.request<{ defaultsVersions: { version: string }[] }>(
    '{ defaultsVersions { version } }',
  );
  for (const version of [from, to]) {
    if (!defaultsVersions.some((published) => published.version === version))
      throw notPublished(version, defaultsVersions);
  }
  const query = `query($from: String!, $to: String!) { defaultsDiff(from: $from, to: $to) ${select(changeFields)} }`;
  const { defaultsDiff: changes } = await cli.request<{ defaultsDiff: Change[] }>(query, { from, to });
  if (cli.out.json) await cli.out.printJson(changes);
  else if (changes.length > 0) {
    const rows = changes.map((change) => [change.path, cell(change.from), cell(change.to)]);
    await cli.out.table(['PATH', from.toUpperCase(), to.toUpperCase()], rows, options);
  }
  if (changes.length === 0) cli.out.note(`${from} and ${to} hold the same values.`);
  return exitCodes.done;
}

async function runList(cli: Cli, options: { header?: boolean }): Promise<number> {
  const query = `{ defaultsVersions ${select(defaultsFields)} }`;
  const { defaultsVersions } = await cli.request<{ defaultsVersions: Version[] }>(query);
  if (cli.out.json) await cli.out.printJson(defaultsVersions);
  else {
    const rows = defaultsVersions.map(({ version, isCurrent, publishedAt, notes }) => [
      version,
      isCurrent ? 'current' : '',
      publishedAt,
      cell(notes),
    ]);
    await cli.out.table(['VERSION', 'CURRENT', 'PUBLISHED', 'NOTES'], rows, options);
  }
  return exitCodes.done;
}

type Result = { defaults: Version } | Problem;

async function runPublish(cli: Cli, options: PublishOptions): Promise<number> {
  const { file, defaultsVersion: version, notes, makeCurrent } = options;
  const input = { version, values: await readSpecFile(file), notes, makeCurrent };
  const mutation = `mutation($input: PublishDefaultsInput!) {
    publishDefaults(input: $input) { ... on PublishDefaultsPayload { defaults ${select(defaultsFields)} } ...Problem }
  } ${problemFragment}`;
  const { publishDefaults } = await cli.request<{ publishDefaults: Result }>(mutation, { input });
  return printVersion(cli, publishDefaults);
}

async function runUse(cli: Cli, _options: object, [version = '']: string[]): Promise<number> {
  const mutation = `mutation($input: SetCurrentDefaultsInput!) {
    setCurrentDefaults(input: $input) { ... on SetCurrentDefaultsPayload { defaults ${select(defaultsFields)} } ...Problem }
  } ${problemFragment}`;
  const variables = { input: { version } };
  const { setCurrentDefaults } = await cli.request<{ setCurrentDefaults: Result }>(mutation, variables);
  return printVersion(cli, setCurrentDefaults);
}

async function printVersion(cli: Cli, result: Result): Promise<number> {
  if (!('defaults' in result)) throw refusedBy(result);
  const { version, isCurrent, hash } = result.defaults;
  if (cli.out.json) await cli.out.printJson(result.defaults);
  else await cli.out.print(`${version} ${isCurrent ? 'current' : 'published'} ${hash}`);
  if (!isCurrent) cli.out.note(`Nobody gets it yet: astraml defaults use ${version} makes it current.`);
  return exitCodes.done;
}

type Item = { path: string; before: unknown; after: unknown; pinned: boolean; changes: boolean };

async function runMigrate(cli: Cli, { file, from, to, header }: MigrateOptions): Promise<number> {
  const { defaults_version: _, ...unversioned } = await mergeSpec(cli, { file }, []);
  const query = `query($spec: JobSpecInput!, $from: String!, $to: String) {
    previewMigration(spec: $spec, from: $from, to: $to) ${select(migrationFields)}
    defaults(version: $from) { version }
    target: defaults(version: $to) { version }
  }`;
  type Answer = { previewMigration: Item[]; defaults: object | null; target: { version: string } | null };
  const answer = await cli.request<Answer>(query, { spec: await requireSpec(unversioned), from, to });
  const { previewMigration: items, defaults, target } = answer;
  const isKnown = defaults !== null;
  if (cli.out.json) await cli.out.printJson(items);
  else {
    const rows = items.map((item) => [item.path, before(item, isKnown), cell(item.after), verdict(item, isKnown)]);
    await cli.out.table(['PATH', 'BEFORE', 'AFTER', ''], rows, { header });
  }
  const changing = items.filter(({ changes }) => changes).length;
  const may = isKnown ? 'change' : 'may change';
  cli.out.note(`${changing} of ${items.length} values ${may} from ${from} to ${target?.version ?? ''}.`);
  if (!isKnown) cli.out.note(`${from} is not published here: what it gave is not known. Set what must not change.`);
  return exitCodes.done;
}

function before({ before: value, changes }: Item, isKnown: boolean): string {
  return changes && !isKnown ? '?' : cell(value);
}

function verdict({ pinned, changes }: Item, isKnown: boolean): string {
  if (pinned) return 'pinned';
  if (!changes) return 'same';
  return isKnown ? 'changes' : 'may change';
}
