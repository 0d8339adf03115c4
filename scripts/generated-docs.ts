// The documents that are made from the code: tables of variables and of error codes. Written by print-docs.ts, compared by
// check-generated.ts and test/repository/docs.test.ts.
import { isEnumType } from 'graphql';
import { commandVariables } from '../src/cli/command-variables.ts';
import { runnerVariables } from '../src/cli/serve/runner-variables.ts';
import { refusals } from '../src/errors.ts';
import { schema } from '../src/gateway/graphql/schema.ts';
import { type Variable, variables } from '../src/variables.ts';

/** Text of each generated file, by its path from the root of the repository. */
export function generatedDocs(): Record<string, string> {
  return { 'docs/configuration.md': configuration(), 'docs/errors.md': errors(), '.env.example': envExample() };
}

const notice = '<!-- Made from the code by `npm run docs`: change it there. -->';

function configuration(): string {
  return `# Configuration

${notice}

Everything is set by environment variables. They are read and checked once, at start. Every problem is named at once, with what is
expected and an example. An empty variable counts as unset. Values of secrets never appear in a message.

## The gateway

\`astraml serve\`, \`astraml dev\` and \`astraml demo\` read these. Where the table says so, \`<NAME>_FILE\` may name a file that holds the
value. \`astraml dev\` also reads \`.env\`; [\`.env.example\`](../.env.example) has every variable to copy from.

${variableTable(variables)}

## The runner

\`astraml runner start\` reads these. Flags win over them.

${variableTable(runnerVariables)}

## The command line

Every command that talks to a gateway reads these. Flags win over them.

${table(
  ['variable', 'meaning'],
  Object.entries(commandVariables).map(([name, { meaning }]) => [`\`${name}\``, meaning]),
)}

What a training command finds in its environment is in [jobs.md](jobs.md#what-the-command-finds).
`;
}

function variableTable(entries: Record<string, Variable>): string {
  const rows = Object.entries(entries).map(([name, { default: fallback, meaning, secret }]) => [
    `\`${name}\``,
    fallback ? `\`${fallback}\`` : '–',
    secret ? `${meaning} Or \`${name}_FILE\`.` : meaning,
  ]);
  return table(['variable', 'default', 'meaning'], rows);
}

function errors(): string {
  const codes = Object.entries(refusals).map(([code, { httpStatus, retryable, meaning, action }]) => [
    `\`${code}\``,
    String(httpStatus),
    retryable ? 'yes' : 'no',
    meaning,
    action,
  ]);
  return `# When something goes wrong

${notice}

4xx means that the request has to change. 5xx means that we failed. Every error has one of the codes below. It stands in:

- \`code\` of a \`UserError\`, for an error of a mutation. Over GraphQL the HTTP status stays 200, and \`httpStatus\` has the class.
- \`extensions.code\`, for an error of the request as a whole.
- \`code\` of a problem (\`application/problem+json\`), over plain HTTP.

Each code has a page in the gateway, \`/errors/<CODE>\`. \`docsUrl\` and a problem's \`type\` point to it.

Where \`retryable\` is true, wait for \`retryAfterSeconds\` (also the header \`Retry-After\`), or use growing pauses. A mutation with an
idempotency key can be repeated safely. Clients should take a code that they do not know for \`INVALID_INPUT\` when it comes as data,
else for \`INTERNAL\`.

## Codes

${table(['code', 'HTTP', 'retry', 'meaning', 'what to do'], codes)}

## Problems of an input

A \`ValidationError\` names every problem of an input, each with a code of its own:

${table(['code', 'meaning'], validationCodes())}
`;
}

function validationCodes(): string[][] {
  const type = schema.getType('ValidationCode');
  if (!isEnumType(type)) throw new Error('The schema has no enum ValidationCode.');
  return type.getValues().map(({ name, description }) => [`\`${name}\``, description ?? '']);
}

/** Every variable of the gateway, with its meaning and its default. */
function envExample(): string {
  const entries = Object.entries<Variable>(variables).map(
    ([name, entry]) => `# ${entry.meaning}\n#${name}=${entry.default ?? entry.example}\n`,
  );
  return `# Every variable of the gateway. Copy to .env (read by \`astraml dev\`) and uncomment what you change.\n\n${entries.join('\n')}`;
}

function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [columns, columns.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  return lines.join('\n');
}
