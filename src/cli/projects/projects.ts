// `astraml projects`: the projects of a gateway, by those who may administer them.
import type { Cli } from '../cli.ts';
import { exitCodes, Failure, usage } from '../failure.ts';
import { select } from '../fields.ts';
import { cell } from '../output.ts';
import { type Page, pageFields, readAll } from '../pages.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { formatAge } from '../text.ts';
import { projectFields } from './commands.ts';

export type ProjectListOptions = { header?: boolean };
export type NewProjectOptions = { name?: string; command?: string };
export type ArchiveOptions = { undo?: boolean };

type Project = {
  id: string;
  name: string;
  command: string[] | null;
  createdAt: string;
  archivedAt: string | null;
  viewerScopes: string[];
};

export async function runProjects(cli: Cli, { header }: ProjectListOptions): Promise<number> {
  const query = `query($after: String) {
    viewer { projects(first: 100, after: $after) { nodes ${select(projectFields)} ${pageFields} } }
  }`;
  type Answer = { viewer: { projects: Page<Project> } };
  const projects = await readAll(async (after) => (await cli.request<Answer>(query, { after })).viewer.projects);
  const now = Date.now();
  const age = (time: string | null) => (time === null ? '' : cli.out.tty ? formatAge(time, now) : time);
  const rows = projects.map((project) => [
    project.id,
    cell(project.name),
    cell(project.command?.join(' ')),
    project.viewerScopes.join(','),
    age(project.createdAt),
    age(project.archivedAt),
  ]);
  if (cli.out.json) await cli.out.printJson(projects);
  else if (rows.length === 0) cli.out.note('No project.');
  else await cli.out.table(['ID', 'NAME', 'COMMAND', 'SCOPES', 'CREATED', 'ARCHIVED'], rows, { header });
  return exitCodes.done;
}

export async function runProjectsCreate(cli: Cli, options: NewProjectOptions, [id]: string[]): Promise<number> {
  const command = options.command === undefined ? undefined : toWords(options.command);
  return change(cli, 'createProject', 'CreateProjectInput', { id, name: options.name, command });
}

export async function runProjectsShow(cli: Cli, _options: object, [named]: string[]): Promise<number> {
  const id = named ?? cli.requireProject();
  const query = `query($id: ID!) { project(id: $id) ${select(projectFields)} }`;
  const { project } = await cli.request<{ project: Project | null }>(query, { id });
  if (!project) throw new Failure(exitCodes.notFound, `Project ${id} does not exist, or you may not see it.`);
  await print(cli, project);
  return exitCodes.done;
}

export async function runProjectsSet(cli: Cli, options: NewProjectOptions, [named]: string[]): Promise<number> {
  if (options.name === undefined && options.command === undefined) {
    throw usage('projects set: say at least one of --name and --command.');
  }
  const words = options.command === undefined ? undefined : toWords(options.command);
  const command = words?.length === 0 ? null : words;
  const input = { id: named ?? cli.requireProject(), name: options.name, command };
  return change(cli, 'updateProject', 'UpdateProjectInput', input);
}

export async function runProjectsArchive(cli: Cli, { undo }: ArchiveOptions, [id]: string[]): Promise<number> {
  return change(cli, 'updateProject', 'UpdateProjectInput', { id, archived: undo !== true });
}

async function change(cli: Cli, mutation: string, input: string, values: object): Promise<number> {
  const text = `mutation($input: ${input}!) {
    result: ${mutation}(input: $input) { __typename ... on ProjectPayload { project ${select(projectFields)} } ...Problem }
  } ${problemFragment}`;
  const { result } = await cli.request<{ result: { project: Project } | Problem }>(text, { input: values });
  if (!('project' in result)) throw refusedBy(result);
  await print(cli, result.project);
  return exitCodes.done;
}

async function print(cli: Cli, project: Project): Promise<void> {
  if (cli.out.json) return cli.out.printJson(project);
  const rows = [
    ['project', project.id],
    ['name', cell(project.name)],
    ['command', cell(project.command?.join(' '))],
    ['scopes', project.viewerScopes.join(',')],
    ['created', project.createdAt],
    ...(project.archivedAt ? [['archived', project.archivedAt]] : []),
  ];
  await cli.out.table(['', ''], rows, { header: false });
}

/** Words as a shell would split them, with '…', "…" and \; nothing is expanded. */
export function toWords(text: string): string[] {
  const words: string[] = [];
  const pattern = /\s*((?:'[^']*'|"(?:\\["\\]|[^"])*"|\\.|[^\s'"\\])+)\s*/gy;
  for (let at = 0; at < text.trimEnd().length; at = pattern.lastIndex) {
    const [, word] = pattern.exec(text) ?? [];
    if (word === undefined) throw usage(`--command: a quote in ${JSON.stringify(text)} does not end.`);
    words.push(
      word.replace(
        /'([^']*)'|"((?:\\["\\]|[^"])*)"|\\(.)/g,
        (_, plain?: string, quoted?: string, escaped?: string) =>
          plain ?? quoted?.replace(/\\(["\\])/g, '$1') ?? escaped ?? '',
      ),
    );
  }
  return words;
}
