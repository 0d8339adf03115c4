// `astraml runners`: which machines take jobs, and how many of their GPUs and places are busy.
import type { Cli } from '../cli.ts';
import { exitCodes } from '../failure.ts';
import { select } from '../fields.ts';
import { cell } from '../output.ts';
import { type Page, pageFields, readAll } from '../pages.ts';
import { formatAge } from '../text.ts';
import { runnerFields } from './commands.ts';

export type RunnerListOptions = { header?: boolean };

type Runner = {
  name: string;
  state: string;
  gpus: { model: string; busy: boolean }[];
  places: number;
  placesBusy: number;
  labels: string[];
  /** Null for all; without those that one may not see. */
  projects: { id: string }[] | null;
  lastSeenAt: string;
};

export async function runRunners(cli: Cli, { header }: RunnerListOptions): Promise<number> {
  const { out } = cli;
  const query = `query($after: String) { runners(first: 100, after: $after) { nodes ${select(runnerFields)} ${pageFields} } }`;
  const runners = await readAll(
    async (after) => (await cli.request<{ runners: Page<Runner> }>(query, { after })).runners,
  );
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
