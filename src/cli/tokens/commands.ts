// The commands about access tokens, with their flags.
import type { Command } from 'commander';
import { type AddCommand, collect, withGlobals } from '../command.ts';
import type { NewTokenOptions, TokenListOptions } from './tokens.ts';

/** What is asked of a token; the names are those of `--json=`. */
export const tokenFields = {
  id: '',
  name: '',
  prefix: '',
  scopes: '',
  project: '{ id }',
  projects: '{ id }',
  createdAt: '',
  expiresAt: '',
  lastUsedAt: '',
};
const names = () => Object.keys(tokenFields);
const load = () => import('./tokens.ts');

export function addTokenCommands(program: Command, add: AddCommand): void {
  add<object>(
    program,
    'whoami',
    'who you are to the gateway, and what you may do',
    () => [...names(), 'server'],
    async () => (await load()).runWhoami,
  );
  const tokens = withGlobals(program.command('tokens').description('access tokens: list, create and revoke them'));
  add<TokenListOptions>(tokens, 'list', 'tokens of a project', names, async () => (await load()).runTokens, {
    isDefault: true,
  })
    .option('--platform', 'those of the whole platform instead')
    .option('--header', 'print the header also where no terminal reads');
  add<NewTokenOptions>(
    tokens,
    'create',
    'create a token; its text is printed this once',
    () => [...names(), 'secret'],
    async () => (await load()).runTokensCreate,
  )
    .option('--scope <scope>', 'read, write, admin or runner (repeat; default: read)', collect)
    .option('--name <text>', 'name for people (default: its scopes)')
    .option('--expires <duration>', 'stop working after, e.g. 90d (default: never)')
    .option('--platform', 'for the whole platform instead of a project')
    .addHelpText(
      'after',
      '\nA token of scope runner claims jobs of the named projects only (-p p-a,p-b), with --platform of all projects.',
    );
  add<object>(
    tokens,
    'revoke',
    'revoke tokens at once, with all that they have open',
    () => ['deletedId', 'schedules'],
    async () => (await load()).runTokensRevoke,
  ).argument('<ids...>', 'ids of tokens (tok_…)');
}
