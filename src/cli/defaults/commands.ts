// The commands about the versioned defaults, and about moving a job spec from one version to another, with their flags.
import type { Command } from 'commander';
import { type AddCommand, withGlobals } from '../command.ts';
import { changeFields, defaultsFields, migrationFields, valueFields } from '../fields.ts';
import type { DefaultsOptions } from './defaults.ts';
import type { MigrateOptions } from './migrate.ts';
import type { PublishOptions } from './publish.ts';

const headerFlag = ['--header', 'print the header also where no terminal reads'] as const;
const load = () => import('./defaults.ts');

export function addDefaultsCommands(program: Command, add: AddCommand): void {
  const defaults = withGlobals(program.command('defaults').description('show what a job gets when nobody says'));
  addReading(defaults, add);
  add<PublishOptions>(
    defaults,
    'publish',
    'publish a version; nobody gets it until it is current',
    () => Object.keys(defaultsFields),
    async () => (await import('./publish.ts')).runPublish,
  )
    .requiredOption('-f, --file <file>', 'values as in a job spec, JSON or YAML; - is stdin (see show --yaml)')
    .requiredOption('--defaults-version <version>', 'the new version, e.g. v2.2')
    .option('--notes <text>', 'for people who migrate, in Markdown')
    .option('--make-current', 'specs that name no version get it from now on');
  add<object>(
    defaults,
    'use',
    'make a published version current: specs that name none get it',
    () => Object.keys(defaultsFields),
    async () => (await import('./publish.ts')).runUse,
  ).argument('<version>', 'version, e.g. v2.2');
  add<MigrateOptions>(
    program,
    'migrate',
    'show what moving a job spec to another version of the defaults would change',
    () => Object.keys(migrationFields),
    async () => (await import('./migrate.ts')).runMigrate,
  )
    .requiredOption('-f, --file <file>', 'job spec, JSON or YAML; - is stdin')
    .requiredOption('--from <version>', 'version it relies on now, e.g. v1.4; may be one that is not published')
    .option('--to <version>', 'version to move to (default: the current one)')
    .option(...headerFlag);
}

function addReading(defaults: Command, add: AddCommand): void {
  add<DefaultsOptions>(
    defaults,
    'show',
    'values of a version; with -p those of the project',
    () => Object.keys(valueFields),
    async () => (await load()).runDefaults,
    { isDefault: true },
  )
    .argument('[version]', 'version, e.g. v2.1 (default: the current one)')
    .option('--version <version>', 'the same as a flag')
    .option('--yaml', 'print the values as a file to be changed and published')
    .option(...headerFlag);
  add<DefaultsOptions>(
    defaults,
    'list',
    'published versions',
    () => Object.keys(defaultsFields),
    async () => (await load()).runDefaultsList,
  ).option(...headerFlag);
  add<DefaultsOptions>(
    defaults,
    'diff',
    'what differs between two versions',
    () => Object.keys(changeFields),
    async () => (await load()).runDefaultsDiff,
  )
    .argument('<from>', 'older version, e.g. v2.1')
    .argument('<to>', 'newer version, e.g. v2.2')
    .option(...headerFlag);
}
