// What a reader may ask for keeps nobody else waiting, on whole installations: hostile text, pages of large lines, and
// searches by the dozen. Every answer is one that the client can act on: data, or a code that is no bug of ours.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { skipUnless } from '../support/absent.ts';
import { compareBystanders } from '../support/bystander.ts';
import { submitJob, untilSucceeded } from '../support/hostile-jobs.ts';
import { type Installation, installations } from '../support/installation.ts';
import { createProject, script } from '../support/stack.ts';

const timeout = 400_000;

/** 1,000 lines of 16 KB. */
const largeLines = script(`
  for (let n = 1; n <= 1000; n++) console.log((n + ' ').padEnd(16000, 'x'));
`);

for (const { kind, needs, start } of installations) {
  suite(`beside a reader that asks for much, ${kind}`, skipUnless(...needs), () => {
    let installation: Installation;
    before(async () => void (installation = await start()), { timeout });
    after(() => installation.stop());

    test('notes made to slow a pattern down stop no bystander', { timeout }, async (t) => {
      const { token, projectId } = await fill(installation);
      const query = 'query ($spec: JobSpecInput!) { previewJob(spec: $spec) { errors { code } } }';
      let size = 0;
      await compareBystanders(t, installation, {
        run: (signal) =>
          flood(installation, token, 2, signal, () => {
            size = (size % 240_000) + 80_000;
            const notes = 'eyJ-'.repeat(size / 4);
            return { query, variables: { spec: { projectId, model: 'm', dataset: 'd', notes } } };
          }),
      });
    });

    test(
      'pages of large lines, a dozen at once, stop no bystander, and no answer is beyond its bytes',
      { timeout },
      async (t) => {
        const { token, jobId } = await fill(installation, largeLines);
        let turn = 0;
        const answers: Answer[] = [];
        await compareBystanders(t, installation, {
          run: async (signal) => {
            const seen = await flood(installation, token, 3, signal, () => {
              const page = 'logs(first: 1000) { nodes { seq text } pageInfo { hasNextPage endCursor } }';
              return { query: aliases(turn++ % 4 === 3 ? 19 : 12, page), variables: { id: jobId } };
            });
            answers.push(...seen);
          },
        });
        for (const { data, bytes } of answers) {
          assert.ok(bytes < 24 * 2 ** 20, `an answer has ${bytes} bytes`);
          for (const page of Object.values(data?.job ?? {})) assertGoesOn(page as LogPage | null);
        }
      },
    );

    test('99 searches in a log of 16 MB at once stop no bystander', { timeout }, async (t) => {
      const { token, jobId } = await fill(installation, largeLines);
      const query = aliases(99, 'logs(first: 5, filter: { search: "nohit" }) { nodes { text } }');
      await compareBystanders(t, installation, {
        run: (signal) => flood(installation, token, 3, signal, () => ({ query, variables: { id: jobId } })),
      });
    });
  });
}

type LogPage = { nodes: { seq: number }[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } };

/** A page that was cut says so, and where it goes on. */
function assertGoesOn(page: LogPage | null): void {
  const last = page?.nodes.at(-1)?.seq ?? 0;
  if (page === null || last >= 1000) return;
  assert.ok(page.pageInfo.hasNextPage && page.pageInfo.endCursor, `a page ends at line ${last} and says nothing more`);
}

function aliases(count: number, field: string): string {
  const fields = Array.from({ length: count }, (_, index) => `a${index}: ${field}`);
  return `query ($id: ID!) { job(id: $id) { ${fields.join(' ')} } }`;
}

type Operation = { query: string; variables: Record<string, unknown> };
type Answer = { data?: { job?: Record<string, unknown> | null } | null; bytes: number };

/** Codes of a refusal that is meant: the client asked for too much, or at the wrong time. */
const meant = ['OPERATION_TOO_LARGE', 'RATE_LIMITED', 'OVERLOADED', 'TIMEOUT', 'BAD_USER_INPUT'];

/** Asks each gateway over `clients` connections, one question after the other, until the signal. */
async function flood(
  { urls }: Installation,
  token: string,
  clients: number,
  signal: AbortSignal,
  next: () => Operation,
): Promise<Answer[]> {
  const answers: Answer[] = [];
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` };
  const asking = urls.flatMap((url) =>
    Array.from({ length: clients }, async () => {
      while (!signal.aborted) {
        const body = JSON.stringify(next());
        const answered = await fetch(`${url}/graphql`, { method: 'POST', headers, body, signal })
          .then(async (answer) => ({ status: answer.status, text: await answer.text() }))
          .catch((error: unknown) => {
            if (!signal.aborted) throw new Error(`${url} cut the connection instead of an answer`, { cause: error });
          });
        if (answered) answers.push(judge(answered.status, answered.text));
      }
    }),
  );
  await Promise.all(asking);
  assert.ok(answers.length > 0, 'no question of the flood was answered');
  return answers;
}

function judge(status: number, text: string): Answer {
  const shown = text.slice(0, 300);
  assert.ok(status < 500 || [503, 504].includes(status), `an answer of ${status}: ${shown}`);
  const { data, errors = [] } = JSON.parse(text) as {
    data?: Answer['data'];
    errors?: { message: string; extensions: { code: string } }[];
  };
  for (const { message, extensions } of errors) {
    assert.ok(meant.includes(extensions.code), `${extensions.code}: ${message}`);
  }
  return { data: data ?? null, bytes: Buffer.byteLength(text) };
}

type Filled = { token: string; jobId: string; projectId: string };

/** A project, a token that may read it, and a job with this command, if any, when it has ended. */
async function fill(installation: Installation, command?: string[]): Promise<Filled> {
  const { first } = installation;
  const projectId = `p-read-${randomUUID().slice(0, 8)}`;
  await createProject(first, projectId);
  const { createToken } = await first.request<{ createToken: { secret?: string } }>(
    `mutation { createToken(input: { projectId: "${projectId}", name: "reader", scopes: [READ] }) {
      ... on CreateTokenPayload { secret } } }`,
  );
  const jobId = command ? await submitJob(installation, projectId, command) : '';
  if (command) await untilSucceeded(installation, jobId);
  return { token: createToken.secret ?? '', jobId, projectId };
}
