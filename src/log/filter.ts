// Filters of a log: by streams, attempt, span of time and literal text.
import { stripVTControlCharacters } from 'node:util';
import { eq, gte, lt, type SQL } from 'drizzle-orm';
import type { LogLine, LogStream } from './log.ts';
import { logChunk } from './table.ts';

export type LogFilter = {
  streams?: LogStream[] | null;
  attempt?: number | null;
  search?: string | null;
  since?: Date | null;
  until?: Date | null;
};

/** Whether any field of the filter is set. */
export function isFiltered(filter: LogFilter): boolean {
  return Object.values(filter).some((value) => value !== null && value !== undefined);
}

/** Returns the conditions of the filter on whole chunks, which hold without reading their lines. */
export function inChunk(filter: LogFilter): SQL[] {
  const { attempt, since, until } = filter;
  return [
    ...(typeof attempt === 'number' ? [eq(logChunk.attempt, attempt)] : []),
    ...(since ? [gte(logChunk.lastTime, since)] : []),
    ...(until ? [lt(logChunk.firstTime, until)] : []),
  ];
}

/** Makes a test for single lines. `search` is literal, and ignores case and escape sequences. */
export function matcher(filter: LogFilter): (line: LogLine) => boolean {
  const { streams, search, since, until } = filter;
  const searchText = search?.toLowerCase();
  return (line) => {
    if (streams && !streams.includes(line.stream)) return false;
    if (since && line.time < since.getTime()) return false;
    if (until && line.time >= until.getTime()) return false;
    return !searchText || stripVTControlCharacters(line.text).toLowerCase().includes(searchText);
  };
}
