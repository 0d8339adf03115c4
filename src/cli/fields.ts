// What commands ask the gateway for, field by field under GraphQL's names: the same names are what `--json=` takes.

/** A field and what is selected of it. */
export type Fields = Record<string, string>;

const reason = '{ code message hint logExcerpt }';
const attempt = `{ id number state exitCode signal startedAt finishedAt runner { id name } reason ${reason} }`;

export const jobFields: Fields = {
  id: '',
  number: '',
  name: '',
  project: '{ id }',
  state: '',
  stateReason: reason,
  isTerminal: '',
  model: '',
  dataset: '',
  resources: '{ gpus gpuModel labels }',
  progress: '{ fraction step totalSteps epoch totalEpochs stepsPerSecond eta reportedAt }',
  metrics: '(first: 50) { name last { value step epoch time } }',
  currentAttempt: attempt,
  defaultsVersion: '',
  specHash: '',
  priority: '',
  tags: '',
  notes: '',
  maxRetries: '',
  timeoutSeconds: '',
  submittedBy: '{ id name }',
  createdAt: '',
  startedAt: '',
  finishedAt: '',
  updatedAt: '',
};

/** One job on a page of its own. */
export const jobPageFields: Fields = {
  ...jobFields,
  attempts: attempt,
  metrics: '{ name count last { value step epoch time } min { value step } max { value step } }',
  command: '',
  env: '{ name value secretName }',
  hyperparams:
    '{ batchSize lr epochs lrScheduler gradientAccumulationSteps earlyStopping { patience monitor goal minDelta } extra }',
  augmentation: '{ op probability params }',
  resolved: '{ path value source overrides { source value } }',
  spec: '',
};

/** A job as a table and an outcome line need it. */
export const jobLineFields: Fields = {
  ...Object.fromEntries(
    ['id', 'number', 'name', 'project', 'state', 'stateReason', 'createdAt', 'startedAt', 'finishedAt'].map((name) => [
      name,
      jobFields[name] ?? '',
    ]),
  ),
  currentAttempt: '{ number }',
  attempts: '{ number }',
};

/** What a command that answers with a job asks for: enough for both, text and JSON. */
export const jobAnswer = select({ ...jobLineFields, ...jobFields });

export const lineFields: Fields = { seq: '', time: '', stream: '', text: '', attempt: '', truncated: '' };

export const metricFields: Fields = {
  name: '',
  count: '',
  last: '{ value step epoch time attempt }',
  min: '{ value step epoch time attempt }',
  max: '{ value step epoch time attempt }',
};

export const windowFields: Fields = Object.fromEntries(
  'id name attempt start end windowSeconds count nonFinite sum min max mean p50 p95 first last firstStep lastStep revision provisional'
    .split(' ')
    .map((name) => [name, '']),
);

export const valueFields: Fields = { path: '', value: '', source: '', overrides: '{ source value }' };

export const defaultsFields: Fields = { version: '', isCurrent: '', publishedAt: '', hash: '', notes: '' };

export const changeFields: Fields = { path: '', from: '', to: '' };

export const migrationFields: Fields = { path: '', before: '', after: '', pinned: '', changes: '' };

export const ruleFields: Fields = Object.fromEntries(
  'path default hasDefault min max allowed required enforcement message'.split(' ').map((name) => [name, '']),
);

export const policyFields: Fields = {
  id: '',
  revision: '',
  project: '{ id }',
  rules: select(ruleFields),
  createdAt: '',
  createdBy: '{ id name }',
};

export const secretFields: Fields = Object.fromEntries(
  'id name version createdAt updatedAt lastUsedAt'.split(' ').map((name) => [name, '']),
);

export const violationFields: Fields = { path: '', value: '', kind: '', message: '', rule: select(ruleFields) };

export const previewFields: Fields = {
  defaultsVersion: '',
  resolved: '{ path value source overrides { source value } }',
  command: '',
  specHash: '',
  matchingRunners: '',
  warnings: '{ code message path }',
  errors: '{ ...Problem }',
};

export const scheduleFields: Fields = {
  id: '',
  name: '',
  project: '{ id }',
  cron: '',
  description: '',
  timezone: '',
  onOverlap: '',
  startingDeadlineSeconds: '',
  defaultsVersion: '',
  pausedAt: '',
  nextRuns: '',
  lastJob: '{ id number state project { id } }',
  spec: '',
  createdAt: '',
  updatedAt: '',
};

/** One schedule on a page of its own. */
export const schedulePageFields: Fields = {
  ...scheduleFields,
  runs: '(first: 10) { nodes { dueAt lastDueAt outcome reason { code message } job { id number state project { id } } } }',
};

export const cronFields: Fields = { cron: '', timezone: '', description: '', nextRuns: '' };

/** A selection set of these fields. */
export function select(fields: Fields): string {
  return `{ ${Object.entries(fields)
    .map(([name, inner]) => (inner ? `${name} ${inner}` : name))
    .join(' ')} }`;
}

export type Reason = { code: string; message: string; hint: string | null; logExcerpt: string[] };
export type MetricValue = number | string;

export type JobLine = {
  id: string;
  number: number;
  name: string;
  project: { id: string };
  state: string;
  stateReason: Reason | null;
  createdAt: string;
  startedAt: string | null;
  finishedAt: string | null;
  currentAttempt: { number: number } | null;
  attempts: { number: number }[];
};

export type LogLine = {
  seq: number;
  time: string;
  stream: string;
  text: string;
  attempt: number;
  truncated: boolean;
};

export type Point = { value: MetricValue; step: number | null; epoch: number | null; time: string };
export type Metric = { name: string; count: number; last: Point; min: Point | null; max: Point | null };
export type Value = {
  path: string;
  value: unknown;
  source: string;
  overrides: { source: string; value: unknown }[];
};
export type Warning = { code: string; message: string };
