// Which processes run, and which of them are ours. A test run is known by its temporary folder: whoever has it in
// its environment, its command line or as its working folder was started by that run.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';

const hasProc = existsSync('/proc/self/stat');

export interface Process {
  pid: number;
  parent: number;
  command: string;
}

/** Every process that has not ended yet (a dead one that nobody waited for is not listed). */
export function listProcesses(): Process[] {
  return hasProc ? listByProc() : listByPs();
}

export function listChildren(pid: number): number[] {
  return listProcesses()
    .filter((process) => process.parent === pid)
    .map((process) => process.pid);
}

/** The processes of the run whose temporary folder this is, without the one that asks. */
export function listProcessesOf(folder: string): Process[] {
  return listProcesses().filter(
    ({ pid, command }) => pid !== process.pid && (command.includes(folder) || belongsTo(pid, folder)),
  );
}

/** A process that ended and that nobody waited for is not alive. */
export function isAlive(pid: number): boolean {
  return listProcesses().some((process) => process.pid === pid);
}

// A small container has no `ps`.
function listByProc(): Process[] {
  const found: Process[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = /\) (\S) (\d+) [^)]*$/.exec(readOrEmpty(`/proc/${name}/stat`));
    if (!stat || stat[1] === 'Z' || stat[1] === 'X') continue;
    const command = readOrEmpty(`/proc/${name}/cmdline`).replaceAll('\0', ' ').trim();
    found.push({ pid: Number(name), parent: Number(stat[2]), command });
  }
  return found;
}

function listByPs(): Process[] {
  const lines = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,stat=,args='], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  const found: Process[] = [];
  for (const line of lines.split('\n')) {
    const match = /^\s*(\d+)\s+(\d+)\s+(\S+)\s*(.*)$/.exec(line);
    if (match && !match[3]?.startsWith('Z')) {
      found.push({ pid: Number(match[1]), parent: Number(match[2]), command: match[4] ?? '' });
    }
  }
  return found;
}

// A server that renames itself (Postgres, Redis) overwrites its environment: its working folder still tells.
function belongsTo(pid: number, folder: string): boolean {
  try {
    if (!hasProc) {
      return execFileSync('ps', ['-E', '-ww', '-o', 'command=', '-p', `${pid}`], { encoding: 'utf8' }).includes(folder);
    }
    if (readOrEmpty(`/proc/${pid}/environ`).includes(folder)) return true;
    return readlinkSync(`/proc/${pid}/cwd`).startsWith(folder);
  } catch {
    return false; // it ended meanwhile, or belongs to somebody else
  }
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return ''; // it ended meanwhile, or belongs to somebody else
  }
}
