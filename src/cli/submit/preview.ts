// `astraml submit --dry-run`: what the job would run with and where each value comes from, or why it would be refused.
import { toInput } from '../../spec/input.ts';
import type { Spec } from '../../spec/shape.ts';
import type { Cli } from '../cli.ts';
import { exitCodes } from '../failure.ts';
import { previewFields, select, type Value, type Warning } from '../fields.ts';
import { cell } from '../output.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { cleanText } from '../text.ts';

type Preview = {
  defaultsVersion: string | null;
  resolved: Value[];
  command: string[] | null;
  specHash: string | null;
  matchingRunners: number;
  warnings: Warning[];
  errors: Problem[];
};

/** Prints the preview; throws the first of its errors, after having said the others. */
export async function runPreview(cli: Cli, spec: Spec): Promise<number> {
  const query = `query($spec: JobSpecInput!) { previewJob(spec: $spec) ${select(previewFields)} } ${problemFragment}`;
  const { previewJob: preview } = await cli.request<{ previewJob: Preview }>(query, { spec: toInput(spec) });
  if (cli.out.json) await cli.out.printJson(preview);
  else await printValues(cli, preview.resolved);
  for (const { message } of preview.warnings) cli.out.warn(`warning: ${cleanText(message)}`);
  const [first, ...others] = preview.errors.map(refusedBy);
  for (const other of others) cli.out.warn(`error: ${cleanText(other.message)}`);
  if (first) throw first;
  const { defaultsVersion, matchingRunners, command, specHash } = preview;
  cli.out.note(`Nothing was submitted. It would run: ${cell((command ?? []).join(' '))}`);
  cli.out.note(`Spec hash ${specHash ?? ''}: --expected-spec-hash submits exactly this.`);
  cli.out.note(`Defaults ${defaultsVersion ?? ''}; ${matchingRunners} runner(s) could take it now.`);
  return exitCodes.done;
}

/** PATH VALUE SOURCE, and what the weaker layers would have given. */
export async function printValues(cli: Cli, values: Value[], options: { header?: boolean } = {}): Promise<void> {
  const rows = values.map(({ path, value, source, overrides }) => [
    path,
    cell(value),
    source,
    ...(cli.out.tty ? [overrides.map((weaker) => `over ${cell(weaker.value)} (${weaker.source})`).join(', ')] : []),
  ]);
  const columns = ['PATH', 'VALUE', 'SOURCE', ...(cli.out.tty ? [''] : [])];
  await cli.out.table(columns, rows, options);
}
