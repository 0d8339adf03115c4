// Effective values of a spec, each with its source: what commands ask for and how they print it.
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
