// `astraml init`: writes a job spec to start from, a copy of an example in which each value has a
// comment.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { closest } from '../closest.ts';
import type { Cli } from './cli.ts';
import type { AddCommand } from './command.ts';
import { exitCodes, usage } from './failure.ts';
import { leafFields } from './fields.ts';

type InitOptions = { example?: string; force?: boolean };

const examples = new URL('../../examples/specs/', import.meta.url);
const path = 'job.yaml';

export function addInitCommand(program: Command, add: AddCommand): void {
  const about = 'write job.yaml, a job spec to start from';
  add(program, 'init', about, leafFields('path example'), () => runInit)
    .option('--example <name>', 'fine-tuning (default), image-classification, large-batch or hourly-retraining')
    .option('--force', 'replace a job.yaml that is there');
}

/**
 * Writes the file into the current folder and prints its path. Replaces an existing file only with
 * --force.
 */
async function runInit(cli: Cli, { example = 'fine-tuning', force = false }: InitOptions): Promise<number> {
  const text = `# yaml-language-server: $schema=${cli.server}/schema/job-spec.json\n${readExample(example)}`;
  try {
    writeFileSync(path, text, { flag: force ? 'w' : 'wx' });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    if (code === 'EEXIST') throw usage(`${path} is there already.`, 'Replace it with --force, or move it away.');
    throw usage(`${path} cannot be written here: ${code}.`, 'Run it in a folder that you may write to.');
  }
  if (cli.out.json) await cli.out.printJson({ path, example });
  else await cli.out.print(path);
  cli.out.note(`Edit it, then: astraml submit -f ${path} --dry-run`);
  return exitCodes.done;
}

/** Returns the example, with its own name in place of the file name. */
function readExample(name: string): string {
  const names = readdirSync(examples)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => file.replace('.yaml', ''));
  if (!names.includes(name)) {
    const near = closest(name, names);
    const hint = `${near ? `Did you mean "${near}"? ` : ''}There are: ${names.join(', ')}.`;
    throw usage(`--example: there is no "${name}".`, hint);
  }
  return readFileSync(new URL(`${name}.yaml`, examples), 'utf8').replaceAll(`${name}.yaml`, path);
}
