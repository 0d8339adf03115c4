// What a reader of a log asks for: streams, an attempt, a span of time, a literal text.
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

/** Whether a filter asks for anything. */
export function isFiltered(filter: LogFilter): boolean {
  return Object.values(filter).some((value) => value !== null && value !== undefined);
}

/** What can be told of a whole chunk without opening it. */
export function inChunk(filter: LogFilter): SQL[] {
  const { attempt, since, until } = filter;
  return [
    ...(typeof attempt === 'number' ? [eq(logChunk.attempt, attempt)] : []),
    ...(since ? [gte(logChunk.lastTime, since)] : []),
    ...(until ? [lt(logChunk.firstTime, until)] : []),
  ];
}

/** A literal search, ignoring case and escape sequences. */
export function matcher(filter: LogFilter): (line: LogLine) => boolean {
  const { streams, search, since, until } = filter;
  const wanted = search?.toLowerCase();
  return (line) => {
    if (streams && !streams.includes(line.stream)) return false;
    if (since && line.time < since.getTime()) return false;
    if (until && line.time >= until.getTime()) return false;
    return !wanted || stripVTControlCharacters(line.text).toLowerCase().includes(wanted);
  };
}
