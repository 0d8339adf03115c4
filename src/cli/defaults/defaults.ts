// `astraml defaults`: what a job gets when nobody says. With -p what it gets in that project.
import { closest } from '../../errors.ts';
import type { Cli } from '../cli.ts';
import { exitCodes, Failure } from '../failure.ts';
import { changeFields, defaultsFields, select, type Value, valueFields } from '../fields.ts';
import { cell } from '../output.ts';
import { printValues } from '../submit/preview.ts';
import { type Json, setPath } from '../submit/spec-file.ts';

export type DefaultsOptions = { version?: string; yaml?: boolean; header?: boolean };

type Version = { version: string; isCurrent: boolean; publishedAt: string; notes: string | null };

export async function runDefaults(cli: Cli, options: DefaultsOptions, [operand]: string[]): Promise<number> {
  const project = cli.globals.project;
  const version = operand ?? options.version;
  const values = project ? await effective(cli, project, { version }) : await published(cli, { version });
  if (options.yaml) await printYaml(cli, values);
  else if (cli.out.json) await cli.out.printJson(values);
  else await printValues(cli, values, options);
  return exitCodes.done;
}

async function effective(cli: Cli, project: string, { version }: DefaultsOptions): Promise<Value[]> {
  const query = `query($project: ID!, $version: String) {
    project(id: $project) { effectiveDefaults(version: $version) ${select(valueFields)} }
  }`;
  const answer = await cli.request<{ project: { effectiveDefaults: Value[] } | null }>(query, { project, version });
  if (answer.project) return answer.project.effectiveDefaults;
  throw new Failure(exitCodes.notFound, `Project ${project} does not exist, or you may not see it.`);
}

async function published(cli: Cli, { version }: DefaultsOptions): Promise<Value[]> {
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
  const known = published.map((item) => item.version);
  const near = closest(version, known);
  const hint = near ? `Did you mean "${near}"?` : `Published: ${known.join(', ')}.`;
  return new Failure(exitCodes.notFound, `Defaults ${version} are not published.`, hint);
}

/** As a job spec file nests them: what `defaults publish -f` takes. */
async function printYaml(cli: Cli, values: Value[]): Promise<void> {
  const { stringify } = await import('yaml');
  const nested: Json = {};
  for (const { path, value } of values) setPath(nested, path.split('.'), value);
  await cli.out.print(stringify(nested).trimEnd());
}

type Change = { path: string; from: unknown; to: unknown };

export async function runDefaultsDiff(cli: Cli, options: DefaultsOptions, [from = '', to = '']: string[]) {
  const { defaultsVersions } = await cli.request<{ defaultsVersions: { version: string }[] }>(
    '{ defaultsVersions { version } }',
  );
  for (const version of [from, to]) {
    if (!defaultsVersions.some((known) => known.version === version)) throw notPublished(version, defaultsVersions);
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

export async function runDefaultsList(cli: Cli, options: DefaultsOptions): Promise<number> {
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
