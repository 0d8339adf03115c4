// `astraml migrate`: what a job spec would get from another version of the defaults, value by value.
import { toInput } from '../../spec/input.ts';
import type { Cli } from '../cli.ts';
import { exitCodes } from '../failure.ts';
import { migrationFields, select } from '../fields.ts';
import { cell } from '../output.ts';
import { requireSpec } from '../submit/spec-file.ts';
import { mergeSpec } from '../submit/spec-flags.ts';

export type MigrateOptions = { file: string; from: string; to?: string; header?: boolean };

type Item = { path: string; before: unknown; after: unknown; pinned: boolean; changes: boolean };

export async function runMigrate(cli: Cli, { file, from, to, header }: MigrateOptions): Promise<number> {
  const { defaults_version: _, ...unversioned } = await mergeSpec(cli, { file }, []);
  const query = `query($spec: JobSpecInput!, $from: String!, $to: String) {
    previewMigration(spec: $spec, from: $from, to: $to) ${select(migrationFields)}
    defaults(version: $from) { version }
    target: defaults(version: $to) { version }
  }`;
  type Answer = { previewMigration: Item[]; defaults: object | null; target: { version: string } | null };
  const answer = await cli.request<Answer>(query, { spec: toInput(requireSpec(unversioned)), from, to });
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
