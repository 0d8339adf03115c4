// Installation of the fuzz run, with three projects. Every text in `p-theirs` holds the marker, so
// that no answer to an outsider may contain it.
import assert from 'node:assert/strict';
import { type Embedded, startEmbedded } from './installation.ts';
import { hostileValues } from './mutations.ts';
import type { Random, ScalarValue } from './operations.ts';
import { createProject, followLog, script, submit } from './stack.ts';

export const marker = 'MARK_7Q4Z';

/**
 * Callers: an administrator, a writer of `p-ours`, a reader of `p-theirs`, the owner of
 * `p-scratch`, a runner, an expired token, and one without a token.
 */
export const callers = ['admin', 'writer', 'reader', 'owner', 'runner', 'expired', 'nobody'] as const;
export type Caller = (typeof callers)[number];
/** Callers that may not see `p-theirs`. */
export const outsiders: readonly Caller[] = ['writer', 'owner', 'runner', 'expired', 'nobody'];

export type FuzzWorld = {
  readonly installation: Embedded;
  readonly port: number;
  readonly tokens: Readonly<Record<Caller, string | null>>;
  /** Ids of all projects and of the objects in them. */
  readonly ids: readonly string[];
  readonly cursors: readonly string[];
};

const talk = script(`
  console.log('${marker}');
  console.log('::astraml ' + JSON.stringify({ '${marker}/loss': 1, step: 1 }));
  console.log('::astraml ' + JSON.stringify({ type: 'checkpoint', path: '${marker}', step: 1 }));
  console.log('::astraml ' + JSON.stringify({ type: 'alert', title: '${marker}', text: '${marker}' }));
  process.exit(Number(process.env.EXIT));
`);

export async function openFuzzWorld(): Promise<FuzzWorld> {
  const installation = await startEmbedded({ LOG_LEVEL: 'info' });
  try {
    return await fillWorld(installation);
  } catch (error) {
    await installation.stop();
    throw error;
  }
}

async function fillWorld(installation: Embedded): Promise<FuzzWorld> {
  const { first: client, token: admin, urls } = installation;
  const change = async (field: string, type: string, input: Record<string, unknown>, wanted = '__typename') => {
    const query = `mutation ($input: ${type}!) { done: ${field}(input: $input) { ... on UserError { message } ${wanted} } }`;
    const { done } = await client.request<{ done: Record<string, unknown> }>(query, { input });
    assert.equal(done['message'], undefined, `${field}: ${String(done['message'])}`);
    return done;
  };
  const newToken = async (projectId: string | null, scope: string, expiresAt?: string) => {
    const input = { projectId, name: projectId === 'p-theirs' ? marker : scope, scopes: [scope], expiresAt };
    const { secret } = await change('createToken', 'CreateTokenInput', input, '... on CreateTokenPayload { secret }');
    return String(secret);
  };

  for (const id of ['p-ours', 'p-theirs', 'p-scratch']) await createProject(client, id, ['true']);
  await change('updateProject', 'UpdateProjectInput', { id: 'p-theirs', name: marker });
  await change('setSecret', 'SetSecretInput', { projectId: 'p-theirs', name: marker, value: marker });
  const spec = {
    ...{ model: marker, dataset: marker, name: marker, notes: marker, tags: [marker], command: talk },
    hyperparams: { extra: { [marker]: marker } },
    augmentation: [{ op: 'crop', params: { [marker]: marker } }],
    resources: { gpus: 0 },
  };
  const env = (code: number) => [
    { name: 'EXIT', from: { value: String(code) } },
    { name: marker, from: { value: marker } },
    { name: 'SECRET', from: { secret: marker } },
  ];
  const theirs = [await submit(client, 'p-theirs', { ...spec, env: env(0) }, marker)];
  theirs.push(await submit(client, 'p-theirs', { ...spec, env: env(3) }));
  const ours = [await submit(client, 'p-ours', { command: ['echo', 'ours'], resources: { gpus: 0 } })];
  for (const { id } of [...theirs, ...ours]) await followLog(client, id);
  await installation.stopRunner();
  const waiting = { ...spec, resources: { gpus: 0, labels: [marker] }, env: env(0) };
  theirs.push(await submit(client, 'p-theirs', waiting));
  theirs.push(await submit(client, 'p-theirs', waiting));
  ours.push(await submit(client, 'p-ours'), await submit(client, 'p-scratch'));
  await change('cancelJob', 'CancelJobInput', { id: theirs[2]?.id, reason: marker });
  const rules = [{ path: 'dataset', allowed: [marker], message: marker }];
  await change('setPolicy', 'SetPolicyInput', { projectId: 'p-theirs', rules });
  const schedules: string[] = [];
  for (const projectId of ['p-theirs', 'p-ours']) {
    const own = projectId === 'p-theirs' ? waiting : { model: 'm', dataset: 'd' };
    const input = {
      spec: { ...own, projectId },
      cron: '0 0 1 1 *',
      name: projectId === 'p-theirs' ? marker : 'yearly',
    };
    const done = await change(
      'createSchedule',
      'CreateScheduleInput',
      input,
      '... on CreateSchedulePayload { schedule { id } }',
    );
    schedules.push((done['schedule'] as { id: string }).id);
  }
  const soon = new Date(Date.now() + 2_000).toISOString();
  const tokens = {
    admin,
    writer: await newToken('p-ours', 'WRITE'),
    reader: await newToken('p-theirs', 'READ'),
    owner: await newToken('p-scratch', 'ADMIN'),
    runner: await newToken(null, 'RUNNER'),
    expired: await newToken('p-theirs', 'ADMIN', soon),
    nobody: null,
  };
  const { cursors, nodeIds } = await collect(installation, theirs[0]?.id ?? '');
  const jobs = [...theirs, ...ours].map(({ id }) => id);
  const ids = ['p-ours', 'p-theirs', 'p-scratch', ...jobs, ...schedules, ...nodeIds, 'job_missing', 'tok_x', 'x'];
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, Date.parse(soon) - Date.now())));
  return { installation, port: Number(new URL(urls[0] ?? '').port), tokens, ids, cursors };
}

/** Returns cursors of every stream and page of a job, and ids of the objects below it. */
async function collect({ first }: Embedded, jobId: string): Promise<{ cursors: string[]; nodeIds: string[] }> {
  const page = 'pageInfo { startCursor endCursor }';
  const query = `query ($id: ID!) {
    job(id: $id) {
      attempts { id } policy { id } logs { ${page} } events { ${page} nodes { id } }
      metrics(first: 20) { id windows { ${page} nodes { id } } }
      project { secrets { id } jobs { ${page} } schedules { ${page} } }
    }
    jobs { ${page} } runners { ${page} nodes { id } } viewer { projects { ${page} } }
  }`;
  const text = JSON.stringify(await first.request(query, { id: jobId }));
  const all = (pattern: RegExp) => [...new Set([...text.matchAll(pattern)].map(([, value = '']) => value))];
  // Ids that hold the marker are left out, e.g. that of a metric, which contains its name: an
  // outsider that sends one may get it back.
  const nodeIds = all(/"id":"([^"]+)"/g).filter((id) => !holdsMarker(id));
  return { cursors: all(/Cursor":"([^"]+)"/g).filter((cursor) => !holdsMarker(cursor)), nodeIds };
}

/** Whether a text holds the marker, plain or in base64. */
function holdsMarker(text: string): boolean {
  return text.includes(marker) || Buffer.from(text, 'base64').toString('latin1').includes(marker);
}

const words = ['train/loss', 'v2.1', 'UTC', 'Europe/Berlin', '0 0 * * *', '@daily', 'm', 'HF_TOKEN', 's3://bucket/d'];
const whole = [0, 1, 2, 5, 20, 100, 1_000, -1, 2 ** 31 - 1, -(2 ** 31)];
const times = ['2026-11-27T12:00:00Z', '0001-01-01T00:00:00Z', '9999-12-31T23:59:59.999Z', '+275760-09-13T00:00:00Z'];
const paths = ['hyperparams.lr', 'dataset', 'resources.gpus', 'hyperparams.__proto__', 'x', '', 'a'.repeat(5_000)];

/** Makes a function that returns ordinary and hostile values of each scalar. */
export function scalarValues({ ids, cursors }: Pick<FuzzWorld, 'ids' | 'cursors'>, random: Random): ScalarValue {
  const texts = hostileValues.filter((value) => typeof value === 'string');
  const json = () =>
    random.chance(0.5) ? random.pick(hostileValues) : random.pick([0.5, 3, 'adam', [1, 2], { a: 1 }]);
  const values: Record<string, (name: string) => unknown> = {
    ID: () => (random.chance(0.85) ? random.pick(ids) : random.pick(texts)),
    String: (name) => {
      if (name === 'after' || name === 'before') return random.pick(random.chance(0.8) ? cursors : texts);
      return random.pick(random.chance(0.6) ? words : texts);
    },
    Int: () => random.pick(whole),
    SafeInt: () => random.pick([...whole, 2 ** 53 - 1, 1 - 2 ** 53]),
    Float: () => random.pick([0, -0, 0.5, 1, 3e-5, 1e308, -1e308, 5e-324]),
    Boolean: () => random.chance(0.5),
    DateTime: () => random.pick(times),
    SpecPath: () => random.pick(paths),
    URI: () => random.pick(words),
    JSON: json,
    JSONObject: () => ({ [random.pick(['lr', 'x', 'a.b', '', '__proto__', 'toString'])]: json() }),
  };
  return (scalar, name) => values[scalar]?.(name) ?? random.pick(texts);
}
