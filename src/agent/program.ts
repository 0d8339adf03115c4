// Checks before the start whether a command can be executed. The shell that starts it would tell
// only by exit codes (126, 127), which the command itself may use too.
import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { User } from './executor.ts';

const defaultPath = '/bin:/usr/bin';
const tools = ['/usr/bin', '/bin', '/usr/sbin', '/sbin', '/usr/local/bin'];
/** Number of bytes of a script's first line that the kernel reads. */
const firstLineBytes = 256;

/**
 * Throws, with a sentence for users, when the program of a command is missing or not executable.
 */
export function requireProgram(
  file: string,
  { cwd, path = defaultPath, user }: { cwd: string; path?: string | undefined; user?: User | undefined },
): void {
  const places = file.includes('/')
    ? [resolve(cwd, file)]
    : path.split(':').map((folder) => resolve(cwd, folder, file));
  const existing = file === '' ? [] : places.filter((place) => statOf(place));
  const program = existing.find((place) => mayExecute(place, user));
  if (!program) {
    throw new Error(
      existing.length > 0 ? `${file} may not be executed on the runner.` : `${file} was not found on the runner.`,
    );
  }
  const interpreter = interpreterOf(program);
  if (interpreter && !statOf(resolve(cwd, interpreter)))
    throw new Error(`${interpreter}, which is to run ${file}, was not found on the runner.`);
}

/** Finds a program of the system by name in its usual folders, whatever PATH says. */
export function findTool(name: string): string | undefined {
  return tools.map((folder) => join(folder, name)).find((file) => statOf(file));
}

/**
 * Checks the mode bits. Where access lists say otherwise, the log of the command shows the kernel's
 * error.
 */
function mayExecute(file: string, user: User | undefined): boolean {
  const stat = statOf(file);
  if (!stat?.isFile()) return false;
  if (!user) return mayAccess(file) && (stat.mode & 0o111) !== 0;
  return allows(file, user) && isReachable(dirname(file), user);
}

/** Whether the user may enter a folder and all folders above it. */
export function isReachable(folder: string, user: User): boolean {
  return allows(folder, user) && (dirname(folder) === folder || isReachable(dirname(folder), user));
}

/** Checks the execute bit, which for a folder is the right to enter it. */
function allows(file: string, { uid, groups }: User): boolean {
  const stat = statOf(file);
  if (!stat) return false;
  if (stat.uid === uid) return (stat.mode & 0o100) !== 0;
  return (stat.mode & ([uid, ...groups].includes(stat.gid) ? 0o010 : 0o001)) !== 0;
}

function interpreterOf(program: string): string | undefined {
  const bytes = Buffer.alloc(firstLineBytes);
  try {
    const descriptor = openSync(program, 'r');
    try {
      readSync(descriptor, bytes, 0, firstLineBytes, 0);
    } finally {
      closeSync(descriptor);
    }
  } catch {
    return undefined; // the program may be executable but not readable
  }
  return /^#![ \t]*([^\s\0]+)/.exec(bytes.toString('latin1'))?.[1];
}

function mayAccess(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function statOf(file: string) {
  try {
    return statSync(file);
  } catch {
    return undefined;
  }
}
