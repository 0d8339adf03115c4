// `Cli`, the object that every command gets: the global flags, the output, and requests to the
// gateway. The sign-in is read only at the first request.
import { type Client, createClient, type RequestOptions, type Variables } from '../client/client.ts';
import { createOutput, type Output } from './output.ts';
import { findSignIn, noProject, notSignedIn, type SignIn } from './signin.ts';

export type Globals = {
  project?: string;
  server?: string;
  /**
   * `*` prints all fields, an empty text lists their names, else the names of the fields to print.
   */
  json?: string;
  quiet?: boolean;
  color?: boolean;
  debug?: boolean;
};

export type Cli = {
  readonly globals: Globals;
  readonly out: Output;
  /** Address of the gateway. */
  readonly server: string;
  /** Project from --project, the environment or client.json; null for none. */
  readonly project: string | null;
  /**
   * Project from the environment or client.json, which the next command uses without a flag; null
   * for none.
   */
  readonly lastingProject: string | null;
  requireProject(): string;
  /** Prints the address of the gateway to stderr, once per command, before a change. */
  nameServer(): void;
  /**
   * Sends a query, or a mutation that may be repeated; a mutation calls `nameServer` first. Prints
   * a note when the gateway does not answer within 2 s.
   */
  request<Data>(query: string, variables?: Variables, options?: RequestOptions & { patient?: boolean }): Promise<Data>;
  follow: Client['follow'];
};

/**
 * Milliseconds for which a command tries to reach the gateway; a `patient` request, e.g. a
 * submission, tries longer.
 */
const tryMs = 5_000;
const patientTryMs = 30_000;
const sayAfterMs = 2_000;

export function openCli(globals: Globals, json: readonly string[] | null): Cli {
  const out = createOutput({ stdout: process.stdout, stderr: process.stderr, quiet: globals.quiet === true, json });
  let cachedSignIn: SignIn | undefined;
  const signIn = () => (cachedSignIn ??= findSignIn({ flags: globals, env: process.env, cwd: process.cwd() }));
  const connect = (retryForMs: number): Client => {
    const { url, token } = signIn();
    if (!token) throw notSignedIn(url);
    return createClient({ url, token, retryForMs });
  };
  let named = false;
  const nameServer = () => {
    if (!named) out.note(`server  ${signIn().url}`);
    named = true;
  };
  return {
    globals,
    out,
    nameServer,
    get server() {
      return signIn().url;
    },
    get project() {
      return signIn().project;
    },
    get lastingProject() {
      return findSignIn({ flags: { server: globals.server }, env: process.env, cwd: process.cwd() }).project;
    },
    requireProject() {
      const { project } = signIn();
      if (!project) throw noProject();
      return project;
    },
    async request(query, variables, { patient = false, ...options } = {}) {
      const client = connect(patient ? patientTryMs : tryMs);
      if (/^\s*mutation\b/.test(query)) nameServer();
      const say = setTimeout(() => out.note(`waiting for ${client.url} …`), sayAfterMs);
      try {
        return await client.request(query, variables, { repeatable: true, ...options });
      } finally {
        clearTimeout(say);
      }
    },
    follow: (query, variables, options) =>
      connect(tryMs).follow(query, variables, {
        onConnection: (state) => out.note(state === 'lost' ? 'connection lost; trying again …' : 'connection restored'),
        ...options,
      }),
  };
}
