// GraphQL: the parts of a job spec that several types show: effective values with their sources,
// hyperparameters, augmentation.
import { builder } from '../graphql/builder.ts';
import type { LayerValue, ResolvedValue } from './resolve.ts';
import { type EffectiveSpec, knownHyperparams } from './shape.ts';
import type { Warning } from './spec.ts';

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

type Hyperparams = EffectiveSpec['hyperparams'];
type EarlyStopping = Hyperparams['early_stopping'];
type AugmentationStep = NonNullable<EffectiveSpec['augmentation']>[number];
type Resources = EffectiveSpec['resources'];

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
      resolve: ({ batch_size: size }) => size,
    }),
    lr: t.float({ description: 'Initial learning rate.', resolve: ({ lr }) => lr }),
    epochs: t.float({ description: 'Number of passes over the dataset.', resolve: ({ epochs }) => epochs }),
    earlyStopping: t.field({
      type: EarlyStoppingRef,
      nullable: true,
      description: 'Early stopping; null when it is off.',
      resolve: ({ early_stopping: stopping }) => (stopping.enabled ? stopping : null),
    }),
    lrScheduler: t.string({ description: 'Learning-rate schedule.', resolve: ({ lr_scheduler: name }) => name }),
    gradientAccumulationSteps: t.int({
      description: 'Steps whose gradients are added up before an update.',
      resolve: ({ gradient_accumulation_steps: steps }) => steps,
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

type EnvVar = NonNullable<EffectiveSpec['env']>[number];

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
