// GraphQL: `JobSpecInput` and its parts, field for field the job spec file in camelCase.
import { builder } from '../graphql/builder.ts';
import { MetricGoal } from './schema.ts';

const EarlyStoppingInput = builder.inputType('EarlyStoppingInput', {
  description: 'Early stopping of a submission.',
  fields: (t) => ({
    patience: t.int({ description: 'Evaluations without improvement before training stops.' }),
    monitor: t.string({ description: 'Metric to watch.' }),
    goal: t.field({ type: MetricGoal, description: 'Direction of improvement.' }),
    minDelta: t.float({ description: 'Smallest change that counts as an improvement.' }),
    enabled: t.boolean({ description: 'Whether training stops early at all.' }),
  }),
});

export const HyperparamsInput = builder.inputType('HyperparamsInput', {
  description: 'Hyperparameters of a submission.',
  fields: (t) => ({
    batchSize: t.int({ description: 'Number of samples per step and device.' }),
    lr: t.float({ description: 'Initial learning rate.' }),
    epochs: t.float({ description: 'Number of passes over the dataset.' }),
    earlyStopping: t.field({
      type: EarlyStoppingInput,
      description: 'Early stopping; `{ enabled: false }` turns it off.',
    }),
    lrScheduler: t.string({ description: 'Learning-rate schedule.' }),
    gradientAccumulationSteps: t.int({ description: 'Steps whose gradients are added up before an update.' }),
    extra: t.field({
      type: 'JSONObject',
      description: 'Any other hyperparameters; keys reach the script untouched.',
    }),
  }),
});

const AugmentationStepInput = builder.inputType('AugmentationStepInput', {
  description: 'One step of the data augmentation of a submission.',
  fields: (t) => ({
    op: t.string({
      required: true,
      description: 'Name of the operation: lower-case letters, digits and underscores.',
    }),
    probability: t.float({ description: 'Share of the samples it is applied to, 0…1.' }),
    params: t.field({
      type: 'JSONObject',
      description: 'Parameters of the operation; keys reach the script untouched.',
    }),
  }),
});

export const ResourcesInput = builder.inputType('ResourcesInput', {
  description: 'Resources of a submission.',
  fields: (t) => ({
    gpus: t.int({ description: 'Number of GPUs; 0 runs on CPU.' }),
    gpuModel: t.string({ description: 'Required GPU model, matched as a case-insensitive substring.' }),
    labels: t.stringList({ description: 'Labels a runner must have.' }),
  }),
});

const EnvSourceInput = builder.inputType('EnvSourceInput', {
  description: 'Source of an environment variable: exactly one field.',
  isOneOf: true,
  fields: (t) => ({
    value: t.string({
      description: 'A literal. One that looks like a credential is refused, unless `notSecret` is set.',
    }),
    secret: t.string({ description: 'Name of a secret of the project.' }),
  }),
});

const EnvVarInput = builder.inputType('EnvVarInput', {
  description: 'An environment variable of a submission.',
  fields: (t) => ({
    name: t.string({
      required: true,
      description: 'Name of the variable. Names that start with `ASTRAML_` are reserved.',
    }),
    from: t.field({ type: EnvSourceInput, required: true, description: 'Where the value comes from.' }),
    notSecret: t.boolean({
      description: "Says that a literal which looks like a credential is none; the job's events record it.",
    }),
  }),
});

const MetricsSpecInput = builder.inputType('MetricsSpecInput', {
  description: 'How metrics of a job are kept.',
  fields: (t) => ({
    windowSeconds: t.int({ description: 'Length of a window, 30 by default.' }),
    maxNames: t.int({
      description:
        'Names of metrics that are kept, the first that come; a limit of the installation holds as well, 20 000 by default.',
    }),
  }),
});

const LogsSpecInput = builder.inputType('LogsSpecInput', {
  description: 'How the log of a job is kept.',
  fields: (t) => ({
    maxBytes: t.field({
      type: 'SafeInt',
      description: 'Bytes kept; beyond them the middle of the log becomes a gap, and the job goes on.',
    }),
  }),
});

export const JobSpecInput = builder.inputType('JobSpecInput', {
  description: 'A job to run. Field for field the job spec file, in camelCase.',
  fields: (t) => ({
    projectId: t.id({ required: true, description: 'Project, e.g. `p-demo`. In the spec file: `project_id`.' }),
    model: t.string({ required: true, description: 'Model to train, e.g. `bert-base`.' }),
    dataset: t.string({ required: true, description: 'Dataset to train on, e.g. `s3://bucket/dataset`.' }),
    hyperparams: t.field({
      type: HyperparamsInput,
      description: 'Hyperparameters; unset ones come from the policy or the defaults.',
    }),
    augmentation: t.field({ type: [AugmentationStepInput], description: 'Data augmentation; none when null.' }),
    resources: t.field({
      type: ResourcesInput,
      description: 'Resources; unset ones come from the policy or the defaults.',
    }),
    command: t.stringList({
      description: "Command to run, as an argument vector; the project's command when null.",
    }),
    env: t.field({ type: [EnvVarInput], description: 'Environment variables of the command.' }),
    name: t.string({ description: 'Name of the job; a readable random one when null.' }),
    tags: t.stringList({ description: 'Free-form labels.' }),
    notes: t.string({ description: 'Notes in Markdown.' }),
    priority: t.int({ description: 'Priority, −100…100.' }),
    maxRetries: t.int({ description: 'Number of retries after a failed attempt, 0–10.' }),
    timeoutSeconds: t.int({ description: 'Seconds the job may run; no limit when null.' }),
    queueTimeoutSeconds: t.int({
      description: 'Seconds the job may wait in the queue; no limit when unset everywhere.',
    }),
    startTimeoutSeconds: t.int({
      description: 'Seconds an attempt may take from its claim until its command runs; no limit when unset everywhere.',
    }),
    onCut: t.string({ description: 'What a runner that lost its gateways does: `continue` or `stop`.' }),
    defaultsVersion: t.string({
      description:
        'Defaults version to resolve with, e.g. `v2.1`; the current one when null. Pin it for reproducible schedules and rolling upgrades.',
    }),
    metrics: t.field({
      type: MetricsSpecInput,
      description: 'How metrics are kept; unset values come from the policy or the defaults.',
    }),
    logs: t.field({
      type: LogsSpecInput,
      description: 'How the log is kept; unset values come from the policy or the defaults.',
    }),
  }),
});
