// GraphQL: the parts of a job spec that several types share: inputs, effective values,
// augmentation, hyperparameters.
import { builder } from '../graphql/builder.ts';
import type { LayerValue, ResolvedValue } from './resolve.ts';
import { knownHyperparams, type Warning } from './spec.ts';

export const MetricGoal = builder.enumType('MetricGoal', {
  description: 'Whether a smaller or a larger value of a metric is better.',
  values: {
    MINIMIZE: { description: 'Smaller is better (losses).' },
    MAXIMIZE: { description: 'Larger is better (accuracies).' },
  },
});

const ValueSourceEnum = builder.enumType('ValueSource', {
  description: 'Where an effective value came from, strongest first.',
  values: {
    REQUEST: { description: 'Set in the request.' },
    SCHEDULE: { description: "Set by the schedule's template." },
    POLICY: { description: "Default of the project's policy." },
    PROJECT: { description: 'Setting of the project, e.g. its command.' },
    DEFAULT: { description: 'Built-in default of the defaults version.' },
    PLATFORM: { description: 'The defaults version, in a path of ours that the documented defaults do not list.' },
  },
});

const LayerValueRef = builder.objectRef<LayerValue>('LayerValue').implement({
  description: 'What a weaker layer would have given.',
  fields: (t) => ({
    source: t.expose('source', { type: ValueSourceEnum, description: 'The layer.' }),
    value: t.expose('value', { type: 'JSON', nullable: true, description: 'Its value.' }),
  }),
});

export const ResolvedValueRef = builder.objectRef<ResolvedValue>('ResolvedValue').implement({
  description: 'An effective value and where it came from.',
  fields: (t) => ({
    path: t.expose('path', { type: 'SpecPath', description: 'Path of the value, e.g. `hyperparams.batch_size`.' }),
    value: t.expose('value', { type: 'JSON', nullable: true, description: 'The value, e.g. `32` or `"cosine"`.' }),
    source: t.expose('source', { type: ValueSourceEnum, description: 'Where it came from.' }),
    overrides: t.expose('overrides', {
      type: [LayerValueRef],
      description: 'What the weaker layers would have given, strongest first.',
    }),
  }),
});

export const WarningRef = builder.objectRef<Warning>('Warning').implement({
  description: 'Advice that does not block.',
  fields: (t) => ({
    code: t.exposeString('code', {
      description: 'Machine-readable code, e.g. `UNKNOWN_HYPERPARAM`, `NO_MATCHING_RUNNER`.',
    }),
    message: t.exposeString('message', { description: 'One sentence for people.' }),
    path: t.exposeStringList('path', {
      nullable: true,
      description: 'Path of the input; null when no single input is at fault.',
    }),
  }),
});

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

type Hyperparams = Record<string, unknown>;
type EarlyStopping = { patience: number; monitor?: string; goal: 'MINIMIZE' | 'MAXIMIZE'; min_delta: number };
type AugmentationStep = { op: string; probability: number; params: Record<string, unknown> };
type Resources = { gpus: number; gpu_model?: string; labels: string[] };

const EarlyStoppingRef = builder.objectRef<EarlyStopping>('EarlyStopping').implement({
  description: 'Early stopping of a job.',
  fields: (t) => ({
    patience: t.exposeInt('patience', { description: 'Evaluations without improvement before training stops.' }),
    monitor: t.exposeString('monitor', {
      nullable: true,
      description: "Metric to watch; the script's own choice when null.",
    }),
    goal: t.expose('goal', { type: MetricGoal, description: 'Direction of improvement.' }),
    minDelta: t.exposeFloat('min_delta', { description: 'Smallest change that counts as an improvement.' }),
  }),
});

export const HyperparamsRef = builder.objectRef<Hyperparams>('Hyperparams').implement({
  description: 'Hyperparameters of a job.',
  fields: (t) => ({
    batchSize: t.int({
      description: 'Number of samples per step and device.',
      resolve: (all) => all['batch_size'] as number,
    }),
    lr: t.float({ description: 'Initial learning rate.', resolve: (all) => all['lr'] as number }),
    epochs: t.float({
      description: 'Number of passes over the dataset.',
      resolve: (all) => all['epochs'] as number,
    }),
    earlyStopping: t.field({
      type: EarlyStoppingRef,
      nullable: true,
      description: 'Early stopping; null when it is off.',
      resolve(all) {
        const stopping = all['early_stopping'] as EarlyStopping & { enabled?: boolean };
        return stopping.enabled === false ? null : stopping;
      },
    }),
    lrScheduler: t.string({
      description: 'Learning-rate schedule.',
      resolve: (all) => all['lr_scheduler'] as string,
    }),
    gradientAccumulationSteps: t.int({
      description: 'Steps whose gradients are added up before an update.',
      resolve: (all) => all['gradient_accumulation_steps'] as number,
    }),
    extra: t.field({
      type: 'JSONObject',
      description: 'All other hyperparameters, keys as submitted.',
      resolve: (all) => Object.fromEntries(Object.entries(all).filter(([key]) => !knownHyperparams.includes(key))),
    }),
  }),
});

export const AugmentationStepRef = builder.objectRef<AugmentationStep>('AugmentationStep').implement({
  description:
    'One step of the data augmentation of a job. The training script applies it; the gateway validates, records and passes it on.',
  fields: (t) => ({
    op: t.exposeString('op', {
      description: 'Name of the operation, e.g. `random_crop`, `token_dropout`, `mixup`.',
    }),
    probability: t.exposeFloat('probability', { description: 'Share of the samples it is applied to, 0…1.' }),
    params: t.expose('params', {
      type: 'JSONObject',
      description: 'Parameters of the operation, keys as submitted.',
    }),
  }),
});

export const ResourcesRef = builder.objectRef<Resources>('Resources').implement({
  description: 'Resources of a job.',
  fields: (t) => ({
    gpus: t.exposeInt('gpus', { description: 'Number of GPUs; 0 runs on CPU.' }),
    gpuModel: t.exposeString('gpu_model', {
      nullable: true,
      description: 'Required GPU model, e.g. `H100`; any when null.',
    }),
    labels: t.exposeStringList('labels', { description: 'Labels a runner must have.' }),
  }),
});

type EnvVar = { name: string; from: { value?: string; secret?: string } };

export const EnvVarRef = builder.objectRef<EnvVar>('EnvVar').implement({
  description: 'An environment variable of a job. Exactly one of `value` and `secretName` is set.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Name of the variable.' }),
    value: t.string({
      nullable: true,
      description: 'Literal value; null when it comes from a secret.',
      resolve: (variable) => variable.from.value,
    }),
    secretName: t.string({
      nullable: true,
      description: 'Secret that provides the value; null for a literal.',
      resolve: (variable) => variable.from.secret,
    }),
  }),
});
