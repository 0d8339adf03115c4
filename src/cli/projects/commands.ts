// The commands about projects, with their flags.
import type { Command } from 'commander';
import { type AddCommand, withGlobals } from '../command.ts';
import type { ArchiveOptions, NewProjectOptions, ProjectListOptions } from './projects.ts';

/** What is asked of a project; the names are those of `--json=`. */
export const projectFields = {
  id: '',
  name: '',
  command: '',
  createdAt: '',
  archivedAt: '',
  viewerScopes: '',
};
const names = () => Object.keys(projectFields);
const load = () => import('./projects.ts');
const ofDefault = 'project (default: -p, else the one that is set)';

export function addProjectCommands(program: Command, add: AddCommand): void {
  const projects = withGlobals(program.command('projects').description('list projects, create and change them'));
  add<ProjectListOptions>(
    projects,
    'list',
    'projects that you can see',
    names,
    async () => (await load()).runProjects,
    { isDefault: true },
  ).option('--header', 'print the header also where no terminal reads');
  add<NewProjectOptions>(projects, 'create', 'create a project', names, async () => (await load()).runProjectsCreate)
    .argument('<project>', 'its key, e.g. p-demo')
    .option('--name <text>', 'name for people (default: the key)')
    .option('--command <words>', "command of jobs that give none, e.g. 'python train.py'");
  add<object>(projects, 'show', 'show a project', names, async () => (await load()).runProjectsShow).argument(
    '[project]',
    ofDefault,
  );
  add<NewProjectOptions>(projects, 'set', 'change a project', names, async () => (await load()).runProjectsSet)
    .argument('[project]', ofDefault)
    .option('--name <text>', 'name for people')
    .option('--command <words>', "command of jobs that give none; '' for none");
  add<ArchiveOptions>(
    projects,
    'archive',
    'make a project read-only; its jobs stay',
    names,
    async () => (await load()).runProjectsArchive,
  )
    .argument('<project>', 'project, e.g. p-demo')
    .option('--undo', 'bring it back');
}
