// Fields that commands select of a schedule.
import { leafFields } from '../fields.ts';

export const scheduleFields = {
  ...leafFields('id name'),
  project: '{ id }',
  ...leafFields('cron description timezone onOverlap startingDeadlineSeconds defaultsVersion pausedAt nextRuns'),
  lastJob: '{ id number state project { id } }',
  ...leafFields('spec createdAt updatedAt'),
};

/** Fields of `schedules show`, which prints one schedule. */
export const schedulePageFields = {
  ...scheduleFields,
  runs: '(first: 10) { nodes { dueAt lastDueAt outcome reason { code message } job { id number state project { id } } } }',
};

export const cronFields = leafFields('cron timezone description nextRuns');

export type Schedule = {
  id: string;
  name: string;
  project: { id: string };
  cron: string;
  description: string;
  timezone: string;
  onOverlap: string;
  startingDeadlineSeconds: number;
  defaultsVersion: string;
  pausedAt: string | null;
  nextRuns: string[];
  lastJob: { number: number; state: string; project: { id: string } } | null;
};
