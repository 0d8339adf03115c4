// Sentences of the runner in the log of an attempt, one line each. Texts are redacted before they
// are cut: half a secret would not be found.
import type { Assignment, Gpu } from '../protocol/control.ts';
import type { Outcome } from './attempt.ts';
import type { CommandEnd } from './executor.ts';
import { cutText } from './lines.ts';
import type { Redactor } from './redact.ts';

/** Upper bound of a command in the log: commands may be megabytes long. */
const maxCommandBytes = 2_000;
/** Upper bounds of named processes that a command left behind, and of bytes of each name. */
const [maxNamed, maxNamedBytes] = [10, 200];

/** Writes a command on one line, redacted. Words with unusual characters are quoted. */
export function describeCommand(command: readonly string[], redactor: Redactor): string {
  const plain = command.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word))).join(' ');
  return cut(redactor.redact(plain), maxCommandBytes);
}

/** Describes the place where an attempt runs, e.g. `runner gpu-7, GPU 0 (NVIDIA H100)`. */
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

/** Makes the end of an attempt whose command could not be started. */
export function notStarted(error: unknown, redactor: Redactor): CommandEnd & { outcome: Outcome; message: string } {
  // the message may hold the command and its secrets
  const reason = redactor.redact(error instanceof Error ? error.message : String(error));
  return { outcome: 'NOT_STARTED', exitCode: null, signal: null, message: cutText(reason, maxCommandBytes) };
}

function cut(text: string, maxBytes: number): string {
  const shown = cutText(text, maxBytes);
  return shown.length < text.length ? `${shown} …` : shown;
}
