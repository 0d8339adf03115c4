// Turns the output of a command into records: log lines, and markers that become points, progress
// and the like.
import { maxLineBytes, type RunnerRecord } from '../protocol/record.ts';
import { cutText, LineSplitter } from './lines.ts';
import { markerPrefix, maxMarkerBytes, parseMarker } from './point.ts';
import type { Redactor } from './redact.ts';

export class CommandOutput {
  readonly #redactor: Redactor;
  readonly #record: (record: RunnerRecord) => void;
  readonly #splitters: Readonly<Record<'STDOUT' | 'STDERR', LineSplitter>>;
  #warnedOfMarker = false;

  constructor(redactor: Redactor, record: (record: RunnerRecord) => void) {
    this.#redactor = redactor;
    this.#record = record;
    this.#splitters = {
      STDOUT: new LineSplitter((text, wasCut) => this.#takeOutput(text, wasCut), {
        maxBytes: maxMarkerBytes,
        redactor,
      }),
      STDERR: new LineSplitter((text, wasCut) => this.#takeLine('STDERR', text, wasCut), { redactor }),
    };
  }

  write(stream: 'STDOUT' | 'STDERR', chunk: Buffer): void {
    this.#splitters[stream].write(chunk);
  }

  end(): void {
    this.#splitters.STDOUT.end();
    this.#splitters.STDERR.end();
  }

  /** Records a log line of the runner itself, in the stream SYSTEM. */
  say(text: string): void {
    this.#record(lineOf('SYSTEM', this.#redactor.redact(text)));
  }

  #takeOutput(text: string, wasCut: boolean): void {
    if (!text.startsWith(markerPrefix)) return this.#takeLine('STDOUT', text, wasCut);
    const record = wasCut ? null : parseMarker(text, Date.now());
    // The line was redacted, but joined names and unusual escapes in the record may still spell a
    // secret.
    if (record) return this.#record(this.#redactor.redactRecord(record));
    if (!this.#warnedOfMarker)
      this.say('A line starts with "::astraml " but is no marker that can be read; it stays in the log.');
    this.#warnedOfMarker = true;
    this.#takeLine('STDOUT', text, wasCut);
  }

  #takeLine(stream: 'STDOUT' | 'STDERR', whole: string, wasCut: boolean): void {
    const line = lineOf(stream, whole);
    const truncated = wasCut || line.text.length < whole.length;
    this.#record({ ...line, ...(truncated ? { truncated } : {}) });
  }
}

function lineOf(stream: 'STDOUT' | 'STDERR' | 'SYSTEM', text: string) {
  return { type: 'line' as const, time: Date.now(), stream, text: cutText(text, maxLineBytes) };
}
