// What an attempt says of itself in its log, on one line each. Texts are redacted before they are cut: half a secret is
// not found.
import type { Assignment, Gpu } from '../protocol/control.ts';
import type { Outcome } from './attempt.ts';
import type { CommandEnd } from './executor.ts';
import { cutText } from './lines.ts';
import type { Redactor } from './redact.ts';

/** A command may be megabytes long; the log shows its start. */
const maxCommandBytes = 2_000;
/** Of what a command left behind, at most so many processes are named, each by so much of its command. */
const [maxNamed, maxNamedBytes] = [10, 200];

/** Words that are not plain are quoted. */
export function describeCommand(command: readonly string[], redactor: Redactor): string {
  const plain = command.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word))).join(' ');
  return cut(redactor.redact(plain), maxCommandBytes);
}

/** Where an attempt runs. */
export function describePlace(
  { name, gpus }: { name: string; gpus: readonly Gpu[] },
  assignment: Assignment,
  virtual: boolean,
): string {
  const slots = assignment.gpus.join(', ');
  if (slots === '') return `runner ${name}, without GPU`;
  if (virtual) return `runner ${name}, virtual slot ${slots} (this machine has no GPU: the slot only counts)`;
  const model = gpus.find((gpu) => gpu.index === assignment.gpus[0])?.model;
  return `runner ${name}, GPU ${slots} (${model})`;
}

export function describeLeft(left: readonly { pid: number; command: string }[], redactor: Redactor): string {
  const named = left
    .slice(0, maxNamed)
    .map(({ pid, command }) => `${pid} (${cut(redactor.redact(command), maxNamedBytes)})`);
  const more = left.length > maxNamed ? ` and ${left.length - maxNamed} more` : '';
  return `The command ended and left processes behind, which are ended now: ${named.join(', ')}${more}.`;
}

/** The end of an attempt whose command was never begun. */
export function notStarted(error: unknown, redactor: Redactor): CommandEnd & { outcome: Outcome; message: string } {
  const reason = redactor.redact(error instanceof Error ? error.message : String(error)); // it may name the command
  return { outcome: 'NOT_STARTED', exitCode: null, signal: null, message: cutText(reason, maxCommandBytes) };
}

function cut(text: string, maxBytes: number): string {
  const shown = cutText(text, maxBytes);
  return shown.length < text.length ? `${shown} …` : shown;
}
