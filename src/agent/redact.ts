// Secrets become `[REDACTED]` before anything is written to disk or sent. Whole lines are looked at, not chunks: a line is
// what leaves this process, so borders of chunks and writes mean nothing by then, and the only border left is the place
// where an overlong line is cut: there the text is read on far enough to see what crosses it.
import type { RunnerRecord } from '../protocol/record.ts';
import { formsOf, minSecretLength } from './encodings.ts';

export const redacted = '[REDACTED]';
/** Variables of the host whose values are secrets, unless ASTRAML_RUNNER_REDACT_VARS names others. */
export const defaultRedactVars =
  '*_PASSWORD,*_SECRET,*_TOKEN,*_PRIVATE_KEY,*_ACCESS_KEY,*_SECRET_KEY,*_CONNECTION_STRING';
export const redactVarsName = 'ASTRAML_RUNNER_REDACT_VARS';

/** The values that an attempt must not tell: the job's secrets, and those of the host's variables that look like one. */
export function secretValues(
  assignment: { env: Readonly<Record<string, string>>; secretEnv: readonly string[] },
  host: Readonly<Record<string, string | undefined>>,
): string[] {
  const patterns = (host[redactVarsName] ?? defaultRedactVars).split(',').map((text) => text.trim());
  const names = patterns
    .filter((text) => text !== '')
    .map((text) => text.replace(/\W/g, (sign) => (sign === '*' ? '.*' : `\\${sign}`)));
  const isSecret = new RegExp(`^(?:${names.join('|')})$`, 'i');
  const ofHost = Object.entries(host).filter(([name]) => names.length > 0 && isSecret.test(name));
  return [...assignment.secretEnv.map((name) => assignment.env[name]), ...ofHost.map(([, value]) => value)].filter(
    (value) => value !== undefined,
  );
}

/**
 * Finds many texts at once (Wu and Manber): a window as long as the shortest text moves over the line; a table says by its
 * last two characters how far it may jump. Its time hardly grows with the number of texts, a regular expression's does.
 */
export class Redactor {
  /** Characters to read on behind a cut, so that nothing that crosses it is missed. */
  readonly lookahead: number;
  readonly #jumps = new Uint8Array(tableSize).fill(minSecretLength - 1);
  /** What to look for by its first characters, longest first. */
  readonly #byHead = new Map<string, string[]>();

  constructor(values: readonly string[]) {
    const forms = [...new Set(values.flatMap((value) => [...formsOf(value)]))].sort((a, b) => b.length - a.length);
    this.lookahead = forms[0]?.length ?? 0;
    for (const form of forms) {
      const head = form.slice(0, minSecretLength);
      this.#byHead.set(head, [...(this.#byHead.get(head) ?? []), form]);
      for (let at = 1; at < minSecretLength; at++) {
        const pair = pairOf(head, at);
        this.#jumps[pair] = Math.min(this.#jumps[pair] ?? 0, minSecretLength - 1 - at);
      }
    }
  }

  /** The text up to `end`, which secrets may cross, with each secret replaced; what overlaps is replaced as one. */
  redact(text: string, end = text.length): string {
    if (this.lookahead === 0) return text.slice(0, end);
    let result = '';
    let copied = 0;
    let found: { from: number; to: number } | undefined;
    for (let at = minSecretLength - 1; at < text.length;) {
      const jump = this.#jumps[pairOf(text, at)] ?? 0;
      const from = at - minSecretLength + 1;
      at += jump || 1;
      if (from >= end) break;
      const length = jump > 0 ? 0 : this.#longestAt(text, from);
      if (length === 0) continue;
      if (found && from < found.to) {
        found.to = Math.max(found.to, from + length);
        continue;
      }
      if (found) {
        result += text.slice(copied, found.from) + redacted;
        copied = found.to;
      }
      found = { from, to: from + length };
    }
    if (!found) return text.slice(0, end);
    return result + text.slice(copied, found.from) + redacted + text.slice(found.to, Math.max(found.to, end));
  }

  /** The record with secrets replaced in what its job or its machine said; it keeps its shape, numbers and all. */
  redactRecord(record: RunnerRecord): RunnerRecord {
    switch (record.type) {
      case 'points': {
        // Names of metrics take no brackets.
        const clean = (name: string) => this.redact(name).replaceAll(redacted, 'REDACTED');
        const values = Object.entries(record.values).map(([name, value]) => [clean(name), value] as const);
        return { ...record, values: Object.fromEntries(values) };
      }
      case 'checkpoint':
        return { ...record, path: this.redact(record.path) };
      case 'alert':
        return { ...record, title: this.redact(record.title), text: this.redact(record.text) };
      case 'finished':
        return { ...record, message: this.redact(record.message) };
      default:
        return record;
    }
  }

  #longestAt(text: string, from: number): number {
    const forms = this.#byHead.get(text.slice(from, from + minSecretLength));
    return forms?.find((form) => text.startsWith(form, from))?.length ?? 0;
  }
}

const tableSize = 65_536;

/** A number for the two characters that end at this place. */
function pairOf(text: string, at: number): number {
  return ((text.charCodeAt(at - 1) << 8) ^ text.charCodeAt(at)) & (tableSize - 1);
}
