// Output of commands: the answer goes to stdout, everything else to stderr. A terminal gets
// aligned, coloured, short text; a program gets complete tab-separated text, or JSON.
import { once } from 'node:events';
import { styleText } from 'node:util';
import { cleanLine, cleanText, textWidth } from './text.ts';

/** An output stream: process.stdout, process.stderr, or a stand-in of a test. */
export type Sink = { write(text: string): boolean; isTTY?: boolean };

export type OutputOptions = {
  stdout: Sink & NodeJS.EventEmitter;
  stderr: Sink;
  quiet: boolean;
  /** Names of the fields to print as JSON; null for text. */
  json: readonly string[] | null;
};

export type Output = {
  /** True when the answer goes to a terminal. */
  readonly tty: boolean;
  /** Whether the answer may be coloured. */
  readonly colours: boolean;
  readonly json: readonly string[] | null;
  /** Prints a line of the answer to stdout. */
  print(line: string): Promise<void>;
  /** Prints a line for people to stderr, e.g. progress or a hint; nothing with --quiet. */
  note(line: string): void;
  /** Prints a line to stderr, also with --quiet. */
  warn(line: string): void;
  /** Prints an object or a list of objects as JSON, with the fields that `--json` chose. */
  printJson(value: object | readonly object[], options?: { pretty?: boolean }): Promise<void>;
  table(
    columns: readonly string[],
    rows: readonly (readonly string[])[],
    options?: { header?: boolean },
  ): Promise<void>;
  paint(style: Style, text: string): string;
};

export type Style = 'red' | 'green' | 'yellow' | 'cyan' | 'dim' | 'bold';

export function createOutput({ stdout, stderr, quiet, json }: OutputOptions): Output {
  const tty = stdout.isTTY === true;
  const colours = mayColour(stdout);
  // The only function that writes the answer. On a terminal, it removes all control sequences but
  // colours; a program gets every byte.
  const print = async (line: string) => {
    if (!stdout.write(`${tty ? harmless(line) : line}\n`)) await once(stdout, 'drain');
  };
  const tell = (line: string) => void stderr.write(`${stderr.isTTY === true ? harmless(line) : line}\n`);
  return {
    tty,
    colours,
    json,
    print,
    note: (line) => void (quiet || tell(line)),
    warn: tell,
    async printJson(value, { pretty = tty } = {}) {
      const chosen = isList(value) ? value.map((item) => pick(item, json)) : pick(value, json);
      await print(JSON.stringify(chosen, null, pretty ? 2 : 0));
    },
    async table(columns, rows, { header = tty } = {}) {
      for (const line of formatTable(columns, rows, { tty, header })) await print(line);
    },
    paint: (style, text) => (colours ? styleText(style, text, { validateStream: false }) : text),
  };
}

function harmless(text: string): string {
  return text
    .split('\n')
    .map((line) => cleanLine(line, true))
    .join('\n');
}

/** Whether a stream may get colours: by FORCE_COLOR, NO_COLOR and TERM=dumb, else on a terminal. */
function mayColour(stream: Sink): boolean {
  const { FORCE_COLOR, NO_COLOR, TERM } = process.env;
  if (FORCE_COLOR !== undefined) return !['0', 'false'].includes(FORCE_COLOR);
  return stream.isTTY === true && !NO_COLOR && TERM !== 'dumb';
}

function isList(value: object | readonly object[]): value is readonly object[] {
  return Array.isArray(value);
}

/** Returns the named fields of an object, in the order of the names; all fields for null. */
export function pick(value: object, names: readonly string[] | null): object {
  if (!names) return value;
  const fields = new Map(Object.entries(value));
  return Object.fromEntries(names.map((name) => [name, fields.get(name) ?? null]));
}

/**
 * Returns the lines of a table: aligned for a terminal; tab-separated and uncut for programs. Cells
 * may hold colours.
 */
export function formatTable(
  columns: readonly string[],
  rows: readonly (readonly string[])[],
  { tty, header }: { tty: boolean; header: boolean },
): string[] {
  // A line end or tab within a cell would begin another row or cell.
  const lines = (header ? [columns, ...rows] : rows).map((cells) =>
    cells.map((text) => text.replace(/[\t\n\r]+/g, ' ')),
  );
  if (!tty) return lines.map((cells) => cells.join('\t'));
  const widths = columns.map((_, index) => Math.max(...lines.map((cells) => textWidth(cells[index] ?? ''))));
  const pad = (cell: string, index: number) =>
    index === columns.length - 1 ? cell : cell + ' '.repeat((widths[index] ?? 0) - textWidth(cell));
  return lines.map((cells) => cells.map(pad).join('  ').trimEnd());
}

/**
 * Returns a value as the text of a cell: strings without control sequences and line ends, other
 * values as JSON.
 */
export function cell(value: unknown): string {
  if (value === null || value === undefined) return '';
  return cleanText(typeof value === 'string' ? value : JSON.stringify(value)).replaceAll('\n', ' ');
}

const looks: Record<string, { glyph: string; style: Style }> = {
  QUEUED: { glyph: '◌', style: 'yellow' },
  STARTING: { glyph: '●', style: 'cyan' },
  RUNNING: { glyph: '●', style: 'cyan' },
  CANCELLING: { glyph: '●', style: 'yellow' },
  SUCCEEDED: { glyph: '✓', style: 'green' },
  FAILED: { glyph: '✗', style: 'red' },
  TIMED_OUT: { glyph: '✗', style: 'red' },
  CANCELLED: { glyph: '✗', style: 'dim' },
};

/**
 * Returns the glyph of a state, coloured where colours are shown. Each state has another glyph, so
 * colour alone tells nothing.
 */
export function stateGlyph(out: Pick<Output, 'paint'>, state: string): string {
  const { glyph, style } = looks[state] ?? { glyph: '●', style: 'dim' };
  return out.paint(style, glyph);
}

/** Returns a state as a cell: with its glyph on a terminal, bare for programs. */
export function stateCell(out: Output, state: string): string {
  return out.tty ? `${stateGlyph(out, state)} ${out.paint(looks[state]?.style ?? 'dim', state)}` : state;
}
