// Whether a command can be executed, found out before it is: the shell that starts it would tell by exit codes alone,
// which a command may have itself.
import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { User } from './user.ts';

const defaultPath = '/bin:/usr/bin';
const tools = ['/usr/bin', '/bin', '/usr/sbin', '/sbin', '/usr/local/bin'];
/** Bytes of a script's first line that the kernel reads. */
const firstLineBytes = 256;

/** Throws with a sentence for people when the program of a command is not there or may not be executed. */
export function requireProgram(
  file: string,
  { cwd, path = defaultPath, user }: { cwd: string; path?: string | undefined; user?: User | undefined },
): void {
  const places = file.includes('/')
    ? [resolve(cwd, file)]
    : path.split(':').map((folder) => resolve(cwd, folder, file));
  const there = file === '' ? [] : places.filter((place) => statOf(place));
  const program = there.find((place) => mayExecute(place, user));
  if (!program) {
    throw new Error(
      there.length > 0 ? `${file} may not be executed on the runner.` : `${file} was not found on the runner.`,
    );
  }
  const interpreter = interpreterOf(program);
  if (interpreter && !statOf(resolve(cwd, interpreter)))
    throw new Error(`${interpreter}, which is to run ${file}, was not found on the runner.`);
}

/** A program of the system, wherever PATH points. */
export function findTool(name: string): string | undefined {
  return tools.map((folder) => join(folder, name)).find((file) => statOf(file));
}

/** As the mode bits say: access lists may say otherwise, and then the command's log has what the kernel said. */
function mayExecute(file: string, user: User | undefined): boolean {
  const stat = statOf(file);
  if (!stat?.isFile()) return false;
  if (!user) return mayAccess(file) && (stat.mode & 0o111) !== 0;
  return allows(file, user) && isReachable(dirname(file), user);
}

/** Whether the user may pass through a folder and all above it. */
export function isReachable(folder: string, user: User): boolean {
  return allows(folder, user) && (dirname(folder) === folder || isReachable(dirname(folder), user));
}

/** The bit that executes a file is the one that lets through a folder. */
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
    return undefined; // it may be executed, not read
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
