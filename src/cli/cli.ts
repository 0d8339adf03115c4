// What every command is given: the global flags, the output, and the gateway, which is looked for only when it is asked.
import { type Client, createClient, type RequestOptions, type Variables } from '../client/client.ts';
import { createOutput, type Output } from './output.ts';
import { findSignIn, noProject, notSignedIn, type SignIn } from './signin.ts';

export type Globals = {
  project?: string;
  server?: string;
  /** `*` for all fields, `` to list them, else their names. */
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
  /** The project that is named outside of the command's own arguments; null for none. */
  readonly project: string | null;
  /** The project that the next command knows without a flag; null for none. */
  readonly lastingProject: string | null;
  requireProject(): string;
  /** Says once on stderr which gateway is about to be changed. */
  nameServer(): void;
  /** Reads, or a mutation that may be repeated, which names the gateway first; says so when it waits for the gateway. */
  request<Data>(query: string, variables?: Variables, options?: RequestOptions & { patient?: boolean }): Promise<Data>;
  follow: Client['follow'];
};

/** How long a command tries to reach the gateway; a submission is worth more patience than a look. */
const tryMs = 5_000;
const patientTryMs = 30_000;
const sayAfterMs = 2_000;

export function openCli(globals: Globals, json: readonly string[] | null): Cli {
  const out = createOutput({ stdout: process.stdout, stderr: process.stderr, quiet: globals.quiet === true, json });
  let found: SignIn | undefined;
  const signIn = () => (found ??= findSignIn({ flags: globals, env: process.env, cwd: process.cwd() }));
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
