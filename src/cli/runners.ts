// `astraml runners`: the machines that run jobs, with their busy GPUs and places.
import type { Command } from 'commander';
import type { Cli } from './cli.ts';
import { type AddCommand, withGlobals } from './command.ts';
import { exitCodes } from './failure.ts';
import { leafFields, select } from './fields.ts';
import { headerFlag } from './flags.ts';
import { cell } from './output.ts';
import { type Page, pageFields, readAll } from './pages.ts';
import { formatAge } from './text.ts';

const runnerFields = {
  ...leafFields('id name state'),
  gpus: '{ index model memoryBytes busy }',
  ...leafFields('places placesBusy labels'),
  projects: '{ id }',
  ...leafFields('version lastSeenAt'),
};

type Runner = {
  name: string;
  state: string;
  gpus: { model: string; busy: boolean }[];
  places: number;
  placesBusy: number;
  labels: string[];
  /** Projects that the caller may see of those that the runner serves; null when it serves all. */
  projects: { id: string }[] | null;
  lastSeenAt: string;
};

export function addRunnersCommands(program: Command, add: AddCommand): void {
  const runners = withGlobals(program.command('runners').description('machines that take jobs'));
  const about = 'runners with their GPUs and places';
  add(runners, 'list', about, runnerFields, () => runRunners, { isDefault: true }).option(...headerFlag);
}

async function runRunners(cli: Cli, { header }: { header?: boolean }): Promise<number> {
  const { out } = cli;
  const query = `query($first: Int!, $after: String) { runners(first: $first, after: $after) { nodes ${select(runnerFields)} ${pageFields} } }`;
  const runners = await readAll(async (page) => (await cli.request<{ runners: Page<Runner> }>(query, page)).runners);
  const now = Date.now();
  const rows = runners.map((runner) => [
    cell(runner.name),
    runner.state,
    String(runner.gpus.length),
    String(runner.gpus.filter(({ busy }) => busy).length),
    `${runner.placesBusy}/${runner.places}`,
    [...new Set(runner.gpus.map(({ model }) => cell(model)))].join(','),
    runner.labels.map(cell).join(','),
    runner.projects === null ? 'all' : runner.projects.map(({ id }) => id).join(',') || 'others',
    out.tty ? `${formatAge(runner.lastSeenAt, now)} ago` : runner.lastSeenAt,
  ]);
  if (out.json) await out.printJson(runners);
  else if (rows.length === 0) out.note('No runner has signed on.');
  else
    await out.table(['NAME', 'STATE', 'GPUS', 'BUSY', 'PLACES', 'MODEL', 'LABELS', 'PROJECTS', 'SEEN'], rows, {
      header,
    });
  return exitCodes.done;
}
