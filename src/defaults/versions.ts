// The versions of the defaults that come with the software. A released version is never edited,
// because jobs and schedules rely on it for ever; a test checks the hash of each. A path that a
// later release adds enters with the next version. `documented` holds what the v2.1 document lists,
// `platform` what it leaves open.

export type BuiltinVersion = {
  version: string;
  /** Values by path in the job spec file. */
  documented: Record<string, unknown>;
  platform: Record<string, unknown>;
  notes: string | null;
};

export const builtinVersions: readonly BuiltinVersion[] = [
  {
    version: 'v2.1',
    documented: {
      'hyperparams.batch_size': 32,
      'hyperparams.early_stopping.patience': 5,
      'hyperparams.epochs': 5,
      'hyperparams.gradient_accumulation_steps': 1,
      'hyperparams.lr': 3e-5,
      'hyperparams.lr_scheduler': 'cosine',
    },
    platform: {
      'augmentation.probability': 1,
      'hyperparams.early_stopping.enabled': true,
      'hyperparams.early_stopping.goal': 'MINIMIZE',
      'hyperparams.early_stopping.min_delta': 0,
      'logs.max_bytes': 268_435_456,
      max_retries: 0,
      'metrics.window_seconds': 30,
      on_cut: 'continue',
      priority: 0,
      'resources.gpus': 1,
      'resources.labels': [],
    },
    notes: 'When migrating from v1.x, verify scheduler, patience and batch size.',
  },
];

/** Order of versions: v1.4, v2.1, v2.2-rc, v2.2, v2.10. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((version) => {
    const [numbers = '', ...rest] = version.replace(/^v/, '').split('-');
    return { numbers: numbers.split('.').map(Number), rest: rest.join('-') };
  });
  if (!left || !right) return 0;
  for (let index = 0; index < Math.max(left.numbers.length, right.numbers.length); index++) {
    const difference = (left.numbers[index] ?? 0) - (right.numbers[index] ?? 0);
    if (difference) return difference;
  }
  if ((left.rest === '') !== (right.rest === '')) return left.rest === '' ? 1 : -1;
  return left.rest < right.rest ? -1 : Number(left.rest > right.rest);
}
