// Fields that commands select of a job, its log and its metrics.
import { type Fields, leafFields, select } from '../fields.ts';
import { valueFields } from '../values.ts';

const reason = '{ code message hint logExcerpt }';
const attempt = `{ id number state exitCode signal startedAt finishedAt runner { id name } reason ${reason} }`;

export const jobFields: Fields = {
  ...leafFields('id number name'),
  project: '{ id }',
  state: '',
  stateReason: reason,
  ...leafFields('isTerminal model dataset'),
  resources: '{ gpus gpuModel labels }',
  progress: '{ fraction step totalSteps epoch totalEpochs stepsPerSecond eta reportedAt }',
  metrics: '(first: 50) { name last { value step epoch time } }',
  currentAttempt: attempt,
  ...leafFields('defaultsVersion specHash priority tags notes maxRetries timeoutSeconds'),
  submittedBy: '{ id name }',
  ...leafFields('createdAt startedAt finishedAt updatedAt'),
};

/** Fields of `jobs show`, which prints one job. */
export const jobPageFields: Fields = {
  ...jobFields,
  attempts: attempt,
  metrics: '{ name count last { value step epoch time } min { value step } max { value step } }',
  command: '',
  env: '{ name value secretName }',
  hyperparams:
    '{ batchSize lr epochs lrScheduler gradientAccumulationSteps earlyStopping { patience monitor goal minDelta } extra }',
  augmentation: '{ op probability params }',
  resolved: select(valueFields),
  spec: '',
};

/** Fields for a row of a table and for the line of an outcome. */
export const jobLineFields: Fields = {
  ...leafFields('id number name'),
  project: '{ id }',
  state: '',
  stateReason: reason,
  ...leafFields('createdAt startedAt finishedAt'),
  currentAttempt: '{ number }',
  attempts: '{ number }',
};

/** Selection of commands that print one job, for text and for JSON. */
export const jobAnswer = select({ ...jobLineFields, ...jobFields });

export const lineFields = leafFields('seq time stream text attempt truncated');

const value = '{ value step epoch time attempt }';
export const metricFields: Fields = { ...leafFields('name count'), last: value, min: value, max: value };

export const windowFields = leafFields(
  'id name attempt start end windowSeconds count nonFinite sum min max mean p50 p95 first last firstStep lastStep revision provisional',
);

type Reason = { code: string; message: string; hint: string | null; logExcerpt: string[] };
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

type Point = { value: MetricValue; step: number | null; epoch: number | null; time: string };
export type Metric = { name: string; count: number; last: Point; min: Point | null; max: Point | null };
