// Learning-rate schedules: from the learning rate of the job down to nothing over all optimizer updates of the run.
import { Refusal } from './input.ts';

/** The share of the learning rate that is left when the share `done` (0 … 1) of the updates is over. */
type Schedule = (done: number) => number;

const schedules: Record<string, Schedule> = {
  cosine: (done) => (1 + Math.cos(Math.PI * done)) / 2,
  linear: (done) => 1 - done,
  constant: () => 1,
};

/**
 * The learning rate of each update. Update `step` of `totalSteps` (from 1) happens when `step − 1` are over: the first
 * one has the full rate, the last one a little more than none.
 */
export function createSchedule(name: string, lr: number, totalSteps: number): (step: number) => number {
  const left = requireSchedule(name);
  return (step) => lr * left((step - 1) / totalSteps);
}

/** Refuses an unknown name. */
export function requireSchedule(name: string): Schedule {
  const schedule = Object.hasOwn(schedules, name) ? schedules[name] : undefined;
  if (schedule !== undefined) return schedule;
  const known = Object.keys(schedules).join(', ');
  throw new Refusal(`hyperparams.lr_scheduler ${JSON.stringify(name)} is unknown; known: ${known}`);
}
