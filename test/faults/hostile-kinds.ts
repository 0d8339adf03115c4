// What hostile jobs print, as their command and the judge both reckon it: each of their lines and markers, and whether
// the database refuses the record that it becomes.
import { crc32 } from 'node:zlib';

export type Output = { record: 'line' | 'points' | 'checkpoint'; text: string; refused: boolean };

export const hostileProjectId = 'p-hostile';
/** The database refuses a log row of this many bytes; no batch of shorter lines of these jobs comes near it. */
export const refusedRowBytes = 10_000;
export const refusedMetric = 'refused/loss';
export const refusedPath = '/refused/model.pt';
/** Default of ASTRAML_MAX_METRIC_NAMES. */
export const maxMetricNames = 20_000;

const markerPrefix = '::astraml ';
const namesInMarker = 200;

type Kind = {
  lines: number;
  /** What line `n` is followed by. */
  after(n: number): Output[];
  /** Whether line `n` is too long for the database. */
  isLong?(n: number): boolean;
  /** Different metric names over the job. */
  names?: number;
  /** The record of the attempt's start or end is refused: the job fails. */
  fails?: true;
};

/** 6,600 names in one write, as one evaluation of many classes reports them: more than one statement could bind. */
const burst = 33;
/** 20,000 names within a second, and 40,000 after it. */
const [floodAtOnce, floodALine] = [100, 4];

export const hostileKinds = {
  names: {
    lines: 40,
    names: burst * namesInMarker,
    after: (n: number) => (n === 10 ? markersOfNames(0, burst) : []),
  },
  flood: {
    lines: 60,
    names: (floodAtOnce + 50 * floodALine) * namesInMarker,
    after(n: number) {
      if (n < 10) return [];
      return n === 10
        ? markersOfNames(0, floodAtOnce)
        : markersOfNames(floodAtOnce + (n - 11) * floodALine, floodALine);
    },
  },
  longlines: { lines: 60, isLong: (n: number) => n === 10 || n === 11 || n === 30, after: () => [] },
  points: { lines: 60, after: (n: number) => (n === 20 || n === 21 ? [refusedPoints(n)] : []) },
  checkpoint: { lines: 60, after: (n: number) => (n === 20 ? [refusedCheckpoint(n)] : []) },
  many: {
    lines: 90,
    isLong: (n: number) => n % 3 === 0 && n < 60,
    after: (n: number) => (n % 6 === 1 && n < 60 ? [refusedPoints(n), refusedCheckpoint(n)] : []),
  },
  nostart: { lines: 20, fails: true, after: () => [] },
  noend: { lines: 20, fails: true, after: () => [] },
} satisfies Record<string, Kind>;

export type HostileKind = keyof typeof hostileKinds;
export const kindsOfNames: HostileKind[] = ['names', 'flood'];
/** Kinds with a record that the database refuses. */
export const kindsOfRefusals: HostileKind[] = ['longlines', 'points', 'checkpoint', 'many', 'nostart', 'noend'];

export function isHostileKind(name: string): name is HostileKind {
  return Object.hasOwn(hostileKinds, name);
}

export function kindOf(name: HostileKind): Kind {
  return hostileKinds[name];
}

/** The line with number `n`, and the markers behind it. */
export function outputsAt(kind: HostileKind, key: string, n: number): Output[] {
  const text = `line ${n} ${crc32(`${key}:${n}`).toString(16)}`;
  const refused = kindOf(kind).isLong?.(n) ?? false;
  const line: Output = { record: 'line', text: refused ? text.padEnd(refusedRowBytes + 1_000, ' x') : text, refused };
  return [line, ...kindOf(kind).after(n)];
}

function markersOfNames(first: number, count: number): Output[] {
  return Array.from({ length: count }, (_, marker) => {
    const numbers = Array.from({ length: namesInMarker }, (_, index) => (first + marker) * namesInMarker + index);
    return points(Object.fromEntries(numbers.map((number) => [`m/${number}`, 1])), false);
  });
}

function refusedPoints(n: number): Output {
  return points({ step: n, [refusedMetric]: n }, true);
}

function points(values: Record<string, number>, refused: boolean): Output {
  return { record: 'points', text: markerPrefix + JSON.stringify(values), refused };
}

function refusedCheckpoint(n: number): Output {
  const text = markerPrefix + JSON.stringify({ type: 'checkpoint', step: n, path: refusedPath });
  return { record: 'checkpoint', text, refused: true };
}
