// `astraml projects`: lists, creates and changes projects.
import type { Command } from 'commander';
import type { Cli } from './cli.ts';
import { type AddCommand, withGlobals } from './command.ts';
import { exitCodes, Failure, usage } from './failure.ts';
import { leafFields, select } from './fields.ts';
import { headerFlag } from './flags.ts';
import { cell } from './output.ts';
import { type Page, pageFields, readAll } from './pages.ts';
import { type Problem, problemFragment, refusedBy } from './problem.ts';
import { formatAge } from './text.ts';

const projectFields = leafFields('id name command createdAt archivedAt viewerScopes');

type ProjectOptions = { name?: string; command?: string };

type Project = {
  id: string;
  name: string;
  command: string[] | null;
  createdAt: string;
  archivedAt: string | null;
  viewerScopes: string[];
};

export function addProjectCommands(program: Command, add: AddCommand): void {
  const projects = withGlobals(program.command('projects').description('list projects, create and change them'));
  const byDefault = ['[project]', 'project (default: -p, else the one that is set)'] as const;
  add(projects, 'list', 'projects that you can see', projectFields, () => runProjects, { isDefault: true }).option(
    ...headerFlag,
  );
  add(projects, 'create', 'create a project', projectFields, () => runProjectsCreate)
    .argument('<project>', 'its key, e.g. p-demo')
    .option('--name <text>', 'name for people (default: the key)')
    .option('--command <words>', "command of jobs that give none, e.g. 'python train.py'");
  add(projects, 'show', 'show a project', projectFields, () => runProjectsShow).argument(...byDefault);
  add(projects, 'set', 'change a project', projectFields, () => runProjectsSet)
    .argument(...byDefault)
    .option('--name <text>', 'name for people')
    .option('--command <words>', "command of jobs that give none; '' for none");
  add(projects, 'archive', 'make a project read-only; its jobs stay', projectFields, () => runProjectsArchive)
    .argument('<project>', 'project, e.g. p-demo')
    .option('--undo', 'bring it back');
}

async function runProjects(cli: Cli, { header }: { header?: boolean }): Promise<number> {
  const query = `query($first: Int!, $after: String) {
    viewer { projects(first: $first, after: $after) { nodes ${select(projectFields)} ${pageFields} } }
  }`;
  type Answer = { viewer: { projects: Page<Project> } };
  const projects = await readAll(async (page) => (await cli.request<Answer>(query, page)).viewer.projects);
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

async function runProjectsCreate(cli: Cli, options: ProjectOptions, [id]: string[]): Promise<number> {
  const command = options.command === undefined ? undefined : toWords(options.command);
  return change(cli, 'createProject', 'CreateProjectInput', { id, name: options.name, command });
}

async function runProjectsShow(cli: Cli, _options: object, [named]: string[]): Promise<number> {
  const id = named ?? cli.requireProject();
  const query = `query($id: ID!) { project(id: $id) ${select(projectFields)} }`;
  const { project } = await cli.request<{ project: Project | null }>(query, { id });
  if (!project) throw new Failure(exitCodes.notFound, `Project ${id} does not exist, or you may not see it.`);
  await print(cli, project);
  return exitCodes.done;
}

async function runProjectsSet(cli: Cli, options: ProjectOptions, [named]: string[]): Promise<number> {
  if (options.name === undefined && options.command === undefined) {
    throw usage('projects set: say at least one of --name and --command.');
  }
  const words = options.command === undefined ? undefined : toWords(options.command);
  const command = words?.length === 0 ? null : words;
  const input = { id: named ?? cli.requireProject(), name: options.name, command };
  return change(cli, 'updateProject', 'UpdateProjectInput', input);
}

async function runProjectsArchive(cli: Cli, { undo }: { undo?: boolean }, [id]: string[]): Promise<number> {
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

/** Splits a text into words as a shell does, with '…', "…" and \; expands nothing. */
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
