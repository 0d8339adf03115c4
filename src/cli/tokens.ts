// `astraml tokens` manages access tokens, for administrators; `astraml whoami` shows the one in
// use.
import type { Command } from 'commander';
import { closest } from '../closest.ts';
import type { Cli } from './cli.ts';
import { type AddCommand, withGlobals } from './command.ts';
import { exitCodes, Failure, usage } from './failure.ts';
import { leafFields, select } from './fields.ts';
import { collect, headerFlag, toSeconds } from './flags.ts';
import { cell } from './output.ts';
import { type Problem, problemFragment, refusedBy } from './problem.ts';
import { formatAge } from './text.ts';

const tokenFields = {
  ...leafFields('id name prefix scopes'),
  project: '{ id }',
  projects: '{ id }',
  ...leafFields('createdAt expiresAt lastUsedAt'),
};

type ListOptions = { platform?: boolean; header?: boolean };
type CreateOptions = { scope?: string[]; name?: string; expires?: string; platform?: boolean };

type Token = {
  id: string;
  name: string;
  prefix: string;
  scopes: string[];
  project: { id: string } | null;
  /**
   * Projects that the caller may see of those to which the token is bound; null for the whole
   * platform.
   */
  projects: { id: string }[] | null;
  createdAt: string;
  expiresAt: string | null;
  lastUsedAt: string | null;
};

const scopes = ['READ', 'WRITE', 'ADMIN', 'RUNNER'];

export function addTokenCommands(program: Command, add: AddCommand): void {
  const seen = { ...tokenFields, server: '' };
  add(program, 'whoami', 'who you are to the gateway, and what you may do', seen, () => runWhoami);
  const tokens = withGlobals(program.command('tokens').description('access tokens: list, create and revoke them'));
  add(tokens, 'list', 'tokens of a project', tokenFields, () => runTokens, { isDefault: true })
    .option('--platform', 'those of the whole platform instead')
    .option(...headerFlag);
  const created = { ...tokenFields, secret: '' };
  add(tokens, 'create', 'create a token; its text is printed this once', created, () => runTokensCreate)
    .option('--scope <scope>', 'read, write, admin or runner (repeat; default: read)', collect)
    .option('--name <text>', 'name for people (default: its scopes)')
    .option('--expires <duration>', 'stop working after, e.g. 90d (default: never)')
    .option('--platform', 'for the whole platform instead of a project')
    .addHelpText(
      'after',
      '\nA token of scope runner claims jobs of the named projects only (-p p-a,p-b), with --platform of all projects.',
    );
  const revoked = leafFields('deletedId schedules');
  add(tokens, 'revoke', 'revoke tokens at once, with all that they have open', revoked, () => runTokensRevoke).argument(
    '<ids...>',
    'ids of tokens (tok_…)',
  );
}

async function runTokens(cli: Cli, { platform, header }: ListOptions): Promise<number> {
  const tokens = await (platform ? listOfPlatform(cli) : listOfProject(cli));
  const now = Date.now();
  const age = (time: string | null) => (time === null ? '' : cli.out.tty ? `${formatAge(time, now)} ago` : time);
  const rows = tokens.map((token) => [
    token.id,
    cell(token.name),
    cell(token.prefix),
    token.scopes.join(','),
    cell(token.expiresAt),
    age(token.lastUsedAt),
    projectsOf(token),
  ]);
  if (cli.out.json) await cli.out.printJson(tokens);
  else if (rows.length === 0) cli.out.note('No token.');
  else await cli.out.table(['ID', 'NAME', 'PREFIX', 'SCOPES', 'EXPIRES', 'USED', 'PROJECTS'], rows, { header });
  return exitCodes.done;
}

function projectsOf({ projects }: Token): string {
  return projects === null ? 'all' : projects.map(({ id }) => id).join(',');
}

async function listOfPlatform(cli: Cli): Promise<Token[]> {
  const query = `{ viewer { platformTokens ${select(tokenFields)} } }`;
  const { viewer } = await cli.request<{ viewer: { platformTokens: Token[] | null } }>(query);
  if (viewer.platformTokens) return viewer.platformTokens;
  throw new Failure(exitCodes.notAllowed, 'Tokens of the platform are shown to its administrators only.');
}

async function listOfProject(cli: Cli): Promise<Token[]> {
  const id = cli.requireProject();
  const query = `query($id: ID!) { project(id: $id) { tokens ${select(tokenFields)} } }`;
  const { project } = await cli.request<{ project: { tokens: Token[] | null } | null }>(query, { id });
  if (!project) throw new Failure(exitCodes.notFound, `Project ${id} does not exist, or you may not see it.`);
  if (project.tokens) return project.tokens;
  throw new Failure(exitCodes.notAllowed, `Tokens of ${id} are shown to its administrators only.`);
}

/** Creates a token. Only its text goes to stdout, so that a script can store it. */
async function runTokensCreate(cli: Cli, options: CreateOptions): Promise<number> {
  const chosen = (options.scope ?? ['read']).flatMap((text) => text.split(',').map(toScope));
  const seconds = options.expires === undefined ? null : toSeconds('--expires', options.expires);
  const input = {
    idempotencyKey: `cli-${crypto.randomUUID()}`,
    ...(options.platform ? {} : forProjects(cli.requireProject(), chosen)),
    name: options.name ?? chosen.join('-').toLowerCase(),
    scopes: chosen,
    expiresAt: seconds === null ? null : new Date(Date.now() + seconds * 1000).toISOString(),
  };
  const mutation = `mutation($input: CreateTokenInput!) {
    createToken(input: $input) { __typename ... on CreateTokenPayload { secret token ${select(tokenFields)} } ...Problem }
  } ${problemFragment}`;
  type Payload = { token: Token; secret: string | null };
  const { createToken: result } = await cli.request<{ createToken: Payload | Problem }>(mutation, { input });
  if (!('token' in result)) throw refusedBy(result);
  const { token, secret } = result;
  if (secret === null) {
    const message = `Token ${token.id} was created, and its text was lost with the answer.`;
    throw new Failure(exitCodes.unexpected, message, `astraml tokens revoke ${token.id}, then create another.`);
  }
  if (cli.out.json) await cli.out.printJson({ ...token, secret });
  else await cli.out.print(secret);
  cli.out.note(`Token ${token.id} with ${token.scopes.join(', ')}: this is the only time that its text is shown.`);
  return exitCodes.done;
}

/**
 * Returns the project fields of the input: a token with RUNNER belongs to the platform and is bound
 * to projects; any other belongs to one project.
 */
function forProjects(named: string, chosen: readonly string[]): { projectId: string } | { projectIds: string[] } {
  return chosen.includes('RUNNER') ? { projectIds: named.split(',').map((id) => id.trim()) } : { projectId: named };
}

function toScope(text: string): string {
  const scope = text.trim().toUpperCase();
  if (scopes.includes(scope)) return scope;
  const near = closest(scope, scopes);
  const hint = near ? `Did you mean "${near.toLowerCase()}"?` : `Known: ${scopes.join(', ').toLowerCase()}.`;
  throw usage(`--scope: "${text}" is no scope of a token.`, hint);
}

async function runTokensRevoke(cli: Cli, _options: object, ids: string[]): Promise<number> {
  const mutation = `mutation($input: RevokeTokenInput!) {
    revokeToken(input: $input) { __typename ... on DeletePayload { deletedId schedules { id name project { id } } } ...Problem }
  } ${problemFragment}`;
  type Revoked = { deletedId: string; schedules: { id: string; name: string; project: { id: string } }[] };
  const revoked: Revoked[] = [];
  for (const id of ids) {
    type Answer = { revokeToken: Revoked | Problem };
    const { revokeToken: result } = await cli.request<Answer>(mutation, { input: { id } });
    if (!('deletedId' in result)) throw refusedBy(result);
    revoked.push(result);
    if (!cli.out.json) await cli.out.print(`${result.deletedId} revoked`);
    for (const schedule of result.schedules) {
      const name = `${cell(schedule.name)} (${schedule.id}) of ${schedule.project.id}`;
      cli.out.warn(`Schedule ${name}, which it created, goes on: astraml schedules pause or delete it.`);
    }
  }
  if (cli.out.json) await cli.out.printJson(revoked);
  return exitCodes.done;
}

async function runWhoami(cli: Cli): Promise<number> {
  const query = `{ viewer { token ${select(tokenFields)} } }`;
  const { viewer } = await cli.request<{ viewer: { token: Token } }>(query);
  const { token } = viewer;
  if (cli.out.json) {
    await cli.out.printJson({ ...token, server: cli.server });
    return exitCodes.done;
  }
  const rows = [
    ['token', `${cell(token.name)} (${token.id}, ${cell(token.prefix)}…)`],
    ['server', cell(cli.server)],
    ['scopes', token.scopes.join(',')],
    ['for', token.projects === null ? 'the whole platform' : projectsOf(token) || 'some projects'],
    ['project', cell(cli.project)],
    ['expires', token.expiresAt ?? 'never'],
  ];
  await cli.out.table(['', ''], rows, { header: false });
  return exitCodes.done;
}
