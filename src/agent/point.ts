// Markers: a line that starts with `::astraml ` and holds one JSON object becomes a record instead
// of a log line. Values may be NaN or ±Infinity, bare as Python's json.dumps writes them, or
// quoted. Nested objects become names with `/`.
import { maxLineBytes, metricName, type RunnerRecord, toWireValue } from '../protocol/record.ts';

export const markerPrefix = '::astraml ';
const maxMetrics = 200;
/** Upper bound of a marker, longer than that of a log line. */
export const maxMarkerBytes = 64 * 1024;
const reserved = new Set(['type', 'step', 'global_step', 'epoch', 'time', 'timestamp']);

type Json = Record<string, unknown>;

/**
 * Parses a line that was read at `time` (milliseconds since the Unix epoch). Null for a line that
 * is no well-formed marker.
 */
export function parseMarker(line: string, time: number): RunnerRecord | null {
  if (!line.startsWith(markerPrefix) || Buffer.byteLength(line) > maxMarkerBytes) return null;
  const marker = parseObject(line.slice(markerPrefix.length));
  if (!marker) return null;
  const markerTime = timeOf(marker) ?? time;
  const step = wholeNumber(marker['step'] ?? marker['global_step']);
  const epoch = finite(marker['epoch']);
  switch (marker['type'] ?? 'metric') {
    case 'metric':
      return pointsOf(marker, markerTime, step, epoch);
    case 'progress': {
      const [totalSteps, totalEpochs] = [wholeNumber(marker['total_steps']), finite(marker['total_epochs'])];
      return step === null && epoch === null
        ? null
        : { type: 'progress', time: markerTime, step, totalSteps, epoch, totalEpochs };
    }
    case 'checkpoint': {
      const { path } = marker;
      return typeof path === 'string' && path !== '' && path.length <= maxLineBytes
        ? { type: 'checkpoint', time: markerTime, step, path }
        : null;
    }
    case 'alert': {
      const { title = '', text = '', level = 'warn' } = marker;
      if (typeof title !== 'string' || typeof text !== 'string' || (!title && !text)) return null;
      if (title.length > maxLineBytes || text.length > maxLineBytes) return null;
      if (level !== 'info' && level !== 'warn' && level !== 'error') return null;
      return { type: 'alert', time: markerTime, level, title, text };
    }
    default:
      return null;
  }
}

function pointsOf(marker: Json, time: number, step: number | null, epoch: number | null): RunnerRecord | null {
  const values: Record<string, ReturnType<typeof toWireValue>> = {};
  let count = 0;
  const collect = (object: Json, prefix: string, depth: number): boolean => {
    for (const [key, value] of Object.entries(object)) {
      if ((prefix === '' && reserved.has(key)) || key === '__proto__') continue;
      const name = prefix + key;
      if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
        if (depth > 8 || !collect(value as Json, `${name}/`, depth + 1)) return false;
        continue;
      }
      const number = metricValue(value);
      if (number === null) continue; // text beside the numbers is allowed, and is no metric
      if (!metricName.safeParse(name).success || ++count > maxMetrics) return false;
      values[name] = toWireValue(number);
    }
    return true;
  };
  return collect(marker, '', 0) && count > 0 ? { type: 'points', time, step, epoch, values } : null;
}

function metricValue(value: unknown): number | null {
  if (typeof value === 'number') return value;
  return value === 'NaN' || value === 'Infinity' || value === '-Infinity' ? Number(value) : null;
}

/**
 * Matches strings, so that words inside of them stay, and the bare words. An unclosed string runs
 * to the end of the line: else each quote in it would start the search anew.
 */
const stringOrWord = /"(?:[^"\\]|\\.)*(?:"|\\?$)|-?\b(?:NaN|Infinity)\b/gs;

/** Parses JSON that may hold Python's bare NaN and ±Infinity. */
function parseObject(text: string): Json | null {
  try {
    const value: unknown = JSON.parse(text.replace(stringOrWord, (token) => (token[0] === '"' ? token : `"${token}"`)));
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : null;
  } catch {
    return null;
  }
}

/** Rounds a number, since some scripts count their steps in floats. */
function wholeNumber(value: unknown): number | null {
  return typeof value === 'number' && Number.isSafeInteger(Math.round(value)) ? Math.round(value) : null;
}

function finite(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

/**
 * Time of a marker in milliseconds, from `time` or `timestamp`, which may be in seconds or
 * milliseconds since the Unix epoch.
 */
function timeOf(marker: Json): number | null {
  const value = marker['time'] ?? marker['timestamp'];
  if (typeof value !== 'number' || !(value > 0) || value > 1e14) return null;
  return Math.round(value > 1e11 ? value : value * 1000);
}
