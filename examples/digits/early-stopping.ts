// Early stopping: training ends after `patience` evaluations in a row that were no improvement on the best one.
import { type Fields, readFields, Refusal } from './input.ts';

export type EarlyStopping = { patience: number; monitor: string; goal: 'MINIMIZE' | 'MAXIMIZE'; minDelta: number };

/** The metrics that an evaluation measures, and in which direction each gets better. */
const goals: Record<string, EarlyStopping['goal']> = { 'eval/loss': 'MINIMIZE', 'eval/accuracy': 'MAXIMIZE' };

/** Null is off, in the job spec too; on when the spec says nothing. Without a `monitor`, it watches `eval/loss`; a `goal` that is given is obeyed, sensible or not. */
export function readEarlyStopping(hyperparams: Fields): EarlyStopping | null {
  const given = hyperparams.raw('early_stopping');
  if (given === null) return null;
  const fields = readFields(given, 'hyperparams.early_stopping');
  if (!fields.flag('enabled', true)) return null;
  const monitor = fields.text('monitor') ?? 'eval/loss';
  const usual = Object.hasOwn(goals, monitor) ? goals[monitor] : undefined;
  if (usual === undefined) {
    const known = Object.keys(goals).join(', ');
    throw new Refusal(`hyperparams.early_stopping.monitor ${JSON.stringify(monitor)} is unknown; known: ${known}`);
  }
  const goal = fields.text('goal') ?? usual;
  if (goal !== 'MINIMIZE' && goal !== 'MAXIMIZE')
    throw new Refusal(`hyperparams.early_stopping.goal is ${JSON.stringify(goal)}: it must be MINIMIZE or MAXIMIZE`);
  return {
    monitor,
    goal,
    patience: fields.number('patience', { default: 5, min: 0, whole: true }),
    minDelta: fields.number('min_delta', { default: 0, min: 0 }),
  };
}

/**
 * The returned function takes each evaluation's metrics in turn and says whether training should stop now. Better by
 * exactly `minDelta` is an improvement, the same value is none. A patience of 0 stops like a patience of 1.
 */
export function createStopper(rule: EarlyStopping): (metrics: Record<string, number>) => boolean {
  let best: number | undefined;
  let without = 0;
  return (metrics) => {
    const value = metrics[rule.monitor] ?? NaN;
    const gain = best === undefined ? Infinity : rule.goal === 'MINIMIZE' ? best - value : value - best;
    if (gain > 0 && gain >= rule.minDelta) {
      best = value;
      without = 0;
      return false;
    }
    return ++without >= Math.max(1, rule.patience);
  };
}
