// Replaces secrets by `[REDACTED]` before a text is written to disk or sent. It looks at whole
// lines, so that a secret may span several chunks of output. Only an overlong line is cut: there
// the text is read far enough behind the cut to find a secret that crosses it.
import { maxMetricName, type RunnerRecord } from '../protocol/record.ts';
import { EncodedFinder } from './encoded-finder.ts';
import { formsOf, textsOf } from './encodings.ts';
import { visible } from './invisible.ts';
import { type Range, redacted, replaceRanges } from './ranges.ts';
import { TextFinder } from './text-finder.ts';

/**
 * Longest text that shows six bytes of an encoded secret, in characters: each byte as `&#x68;` or
 * `\\u0068`.
 */
const longestFragment = 36;
/**
 * Patterns of host variables whose values are secrets, unless ASTRAML_RUNNER_REDACT_VARS names
 * others.
 */
export const defaultRedactVars =
  '*_PASSWORD,*_SECRET,*_TOKEN,*_PRIVATE_KEY,*_ACCESS_KEY,*_SECRET_KEY,*_CONNECTION_STRING';
export const redactVarsName = 'ASTRAML_RUNNER_REDACT_VARS';

/**
 * Returns the values that the output of an attempt must not show: the job's secrets, and values of
 * host variables whose names match the patterns.
 */
export function secretValues(
  assignment: { env: Readonly<Record<string, string>>; secretEnv: readonly string[] },
  host: Readonly<Record<string, string | undefined>>,
): string[] {
  const patterns = (host[redactVarsName] ?? defaultRedactVars).split(',').map((text) => text.trim());
  const names = patterns
    .filter((text) => text !== '')
    .map((text) => text.replace(/\W/g, (sign) => (sign === '*' ? '.*' : `\\${sign}`)));
  const isSecret = new RegExp(`^(?:${names.join('|')})$`, 'i');
  const hostVariables = Object.entries(host).filter(([name]) => names.length > 0 && isSecret.test(name));
  return [
    ...assignment.secretEnv.map((name) => assignment.env[name]),
    ...hostVariables.map(([, value]) => value),
  ].filter((value) => value !== undefined);
}

export class Redactor {
  /** Number of characters to read behind a cut, so that a secret that crosses it is found. */
  readonly lookahead: number;
  readonly #plain: TextFinder;
  readonly #encoded: EncodedFinder;

  constructor(values: readonly string[]) {
    this.#plain = new TextFinder(values.flatMap((value) => [...formsOf(value)]));
    this.#encoded = new EncodedFinder(values.flatMap(textsOf));
    this.lookahead = this.#plain.longest === 0 ? 0 : Math.max(this.#plain.longest, longestFragment);
  }

  /**
   * Returns the text up to `end` with each secret replaced. A secret may cross `end`; overlapping
   * ones are replaced as one.
   */
  redact(text: string, end = text.length): string {
    return replaceRanges(text, this.#find(text, end < text.length), end);
  }

  /**
   * Redacts texts that are shown beside each other: a secret may stand in one, or cross several
   * that are joined by one of `separators`.
   */
  redactJoined(texts: readonly string[], separators: readonly string[]): string[] {
    const ranges = texts.map((): Range[] => []);
    for (const separator of separators) {
      for (const { from, to } of this.#find(texts.join(separator))) {
        let start = 0;
        for (const [index, text] of texts.entries()) {
          const part = { from: Math.max(from - start, 0), to: Math.min(to - start, text.length) };
          if (part.from < part.to) ranges[index]?.push(part);
          start += text.length + separator.length;
        }
      }
    }
    return texts.map((text, index) => replaceRanges(text, ranges[index] ?? []));
  }

  /**
   * Redacts the texts of a record that come from its job or its machine. Shape and numbers stay.
   */
  redactRecord(record: RunnerRecord): RunnerRecord {
    switch (record.type) {
      case 'points': {
        const values = Object.entries(record.values).map(([name, value]) => [this.#redactName(name), value] as const);
        return { ...record, values: Object.fromEntries(values) };
      }
      case 'checkpoint':
        return { ...record, path: this.redact(record.path) };
      case 'alert': {
        const [title = '', text = ''] = this.redactJoined([record.title, record.text], ['\n', ' ', '']);
        return { ...record, title, text };
      }
      case 'finished':
        return { ...record, message: this.redact(record.message) };
      default:
        return record;
    }
  }

  /**
   * Redacts a metric name. Names of nested objects were joined with `/` and may spell a secret
   * without it. Names allow no brackets, so the mark is plain REDACTED.
   */
  #redactName(name: string): string {
    const clean = this.redactJoined(name.split('/'), ['/', '']).join('/');
    return clean === name ? name : clean.replaceAll(redacted, 'REDACTED').slice(0, maxMetricName);
  }

  #find(whole: string, goesOn = false): Range[] {
    if (this.lookahead === 0) return [];
    const { text, places } = visible(whole);
    const ranges = this.#encoded.find(text);
    for (const range of this.#plain.find(text, goesOn)) ranges.push(range);
    if (!places) return ranges;
    return ranges.map(({ from, to }) => ({ from: places[from] ?? 0, to: (places[to - 1] ?? 0) + 1 }));
  }
}
