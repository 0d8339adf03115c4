// `astraml defaults`: what a job gets when nobody says. With -p what it gets in that project.
import { closest } from '../../errors.ts';
import type { Cli } from '../cli.ts';
import { exitCodes, Failure } from '../failure.ts';
import { defaultsFields, select, type Value, valueFields } from '../fields.ts';
import { cell } from '../output.ts';
import { printValues } from '../submit/preview.ts';

export type DefaultsOptions = { version?: string; header?: boolean };

type Version = { version: string; isCurrent: boolean; publishedAt: string; notes: string | null };

export async function runDefaults(cli: Cli, options: DefaultsOptions): Promise<number> {
  const project = cli.globals.project;
  const values = project ? await effective(cli, project, options) : await published(cli, options);
  if (cli.out.json) await cli.out.printJson(values);
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
  const known = answer.defaultsVersions.map((item) => item.version);
  const near = closest(version ?? '', known);
  const hint = near ? `Did you mean "${near}"?` : `Published: ${known.join(', ')}.`;
  throw new Failure(exitCodes.notFound, `Defaults ${version ?? ''} are not published.`, hint);
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
