// Secrets become `[REDACTED]` before anything is written to disk or sent. Whole lines are looked at, not chunks: a line is
// what leaves this process, so borders of chunks and writes mean nothing by then, and the only border left is the place
// where an overlong line is cut: there the text is read on far enough to see what crosses it.
import { maxMetricName, type RunnerRecord } from '../protocol/record.ts';
import { EncodedFinder } from './encoded-finder.ts';
import { formsOf, textsOf } from './encodings.ts';
import { visible } from './invisible.ts';
import { type Range, redacted, replaceRanges } from './ranges.ts';
import { TextFinder } from './text-finder.ts';

/** Six bytes as `&#x68;` or `\\u0068`. */
const longestFragment = 36;
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

export class Redactor {
  /** Characters to read on behind a cut, so that nothing that crosses it is missed. */
  readonly lookahead: number;
  readonly #plain: TextFinder;
  readonly #encoded: EncodedFinder;

  constructor(values: readonly string[]) {
    this.#plain = new TextFinder(values.flatMap((value) => [...formsOf(value)]));
    this.#encoded = new EncodedFinder(values.flatMap(textsOf));
    this.lookahead = this.#plain.longest === 0 ? 0 : Math.max(this.#plain.longest, longestFragment);
  }

  /** The text up to `end`, which secrets may cross, with each secret replaced; what overlaps is replaced as one. */
  redact(text: string, end = text.length): string {
    return replaceRanges(text, this.#find(text, end < text.length), end);
  }

  /** Texts that are shown beside each other, without secrets that stand in one or, joined by one of `separators`, in several. */
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

  /** The record with secrets replaced in what its job or its machine said; it keeps its shape, numbers and all. */
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

  /** Keys of nested objects were joined with `/`: without it they may spell a secret too. Names take no brackets. */
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
