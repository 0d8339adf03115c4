// Finds gateway, token and project: from flags, else the environment, else the client.json that
// `astraml dev` writes into its data folder. A token is sent only to the server for which it was
// given.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { exitCodes, Failure, usage } from './failure.ts';

export type SignIn = { url: string; token: string | null; project: string | null };

export type SignInSources = {
  flags: { server?: string | undefined; project?: string | undefined };
  env: Record<string, string | undefined>;
  cwd: string;
};

const clientFile = z.object({ url: z.url(), token: z.string().min(1), project: z.string().optional() });

/** Default address of `astraml dev`. */
const localUrl = 'http://127.0.0.1:4000';

/**
 * Returns the sign-in; `token` is null when none is known for the server, and the command decides
 * whether it needs one. The address in a file is used only with the token of that file: a file that
 * came with a downloaded folder must not get the token of the environment.
 */
export function findSignIn({ flags, env, cwd }: SignInSources): SignIn {
  const file = readClientFile(env, cwd);
  const envToken = env['ASTRAML_TOKEN'] || null;
  const named = flags.server ?? (env['ASTRAML_URL'] || undefined);
  if (named === undefined && file && envToken !== null && envToken !== file.token) {
    throw new Failure(
      exitCodes.notAllowed,
      `ASTRAML_TOKEN is set without a server, and ${file.path} names ${file.url} with a token of its own.`,
      'Set ASTRAML_URL to the server that the token is for, or unset ASTRAML_TOKEN.',
    );
  }
  if (named === undefined && file && !isLoopback(file.url)) {
    throw new Failure(
      exitCodes.notAllowed,
      `${file.path} names ${file.url}, which is not on this machine: nothing is sent there by a file's word alone.`,
      'To use that server name it yourself, with ASTRAML_URL and ASTRAML_TOKEN.',
    );
  }
  const url = checkUrl(named ?? file?.url ?? localUrl);
  // The token and project in the file belong to its server, and are not used for another one.
  const own = file && new URL(file.url).origin === new URL(url).origin ? file : null;
  return {
    url,
    token: envToken ?? own?.token ?? null,
    project: flags.project ?? (env['ASTRAML_PROJECT'] || own?.project || null),
  };
}

export function notSignedIn(url: string): Failure {
  return new Failure(
    exitCodes.notAllowed,
    `You are not signed in to ${url}.`,
    'Set ASTRAML_TOKEN (and ASTRAML_URL), or run this in the folder where `astraml dev` was started.',
  );
}

export function noProject(): Failure {
  return usage('Which project? None is named.', 'Name it with -p, e.g. -p p-demo, or set ASTRAML_PROJECT.');
}

function checkUrl(text: string): string {
  const url = URL.parse(text);
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw usage(`"${text}" is no address of a gateway.`, 'Give it as http://host:port or https://host.');
  }
  if (url.username || url.password) {
    throw usage(
      "The gateway's address holds a user or a password.",
      'Leave them out, and set ASTRAML_TOKEN to a token.',
    );
  }
  return text.replace(/\/+$/, '');
}

type ClientFile = z.output<typeof clientFile> & { path: string };

function readClientFile(env: Record<string, string | undefined>, cwd: string): ClientFile | null {
  const path = clientFilePath(env, cwd);
  if (!path) return null;
  const { mode, uid } = statSync(path);
  if (process.getuid && uid !== process.getuid()) {
    throw new Failure(
      exitCodes.notAllowed,
      `${path} belongs to another user.`,
      'Run this elsewhere, or delete the file.',
    );
  }
  // ssh has the same rule. It also refuses a client.json from a cloned repository, which others can
  // read.
  if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
    throw new Failure(exitCodes.notAllowed, `${path} holds a token and can be read by others.`, `chmod 600 ${path}`);
  }
  const parsed = clientFile.safeParse(parseJson(readFileSync(path, 'utf8')));
  if (!parsed.success) {
    throw usage(`${path} is not what \`astraml dev\` writes.`, 'Delete it and start `astraml dev` again.');
  }
  return { ...parsed.data, path };
}

function isLoopback(url: string): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function clientFilePath(env: Record<string, string | undefined>, cwd: string): string | null {
  const folder = env['ASTRAML_DATA_DIR'];
  if (folder) {
    const path = join(resolve(cwd, folder), 'client.json');
    return existsSync(path) ? path : null;
  }
  for (let at = resolve(cwd); ; at = dirname(at)) {
    const path = join(at, '.astraml', 'client.json');
    if (existsSync(path)) return path;
    if (dirname(at) === at) return null;
  }
}
