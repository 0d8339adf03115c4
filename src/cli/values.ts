// Effective values of a spec with their sources: the fields that commands select, and how they are
// printed.
import type { Cli } from './cli.ts';
import { leafFields } from './fields.ts';
import { cell } from './output.ts';

export const valueFields = { ...leafFields('path value source'), overrides: '{ source value }' };

export type Value = {
  path: string;
  value: unknown;
  source: string;
  overrides: { source: string; value: unknown }[];
};

/**
 * Prints a table of path, value and source, and the values of weaker layers that were overridden.
 */
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
