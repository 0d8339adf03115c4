// Lists processes, and those of a test run. A process belongs to a run that has its temporary
// folder in its environment, command line or working folder.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';

const hasProc = existsSync('/proc/self/stat');

export interface Process {
  pid: number;
  parent: number;
  command: string;
}

/** Lists every living process; a dead process that nobody has waited for is left out. */
export function listProcesses(): Process[] {
  return hasProc ? listByProc() : listByPs();
}

export function listChildren(pid: number): number[] {
  return listProcesses()
    .filter((process) => process.parent === pid)
    .map((process) => process.pid);
}

/** Lists the processes of the run with this temporary folder, without this process. */
export function listProcessesOf(folder: string): Process[] {
  return listProcesses().filter(
    ({ pid, command }) => pid !== process.pid && (command.includes(folder) || belongsTo(pid, folder)),
  );
}

/** Whether the process lives. A dead process that nobody has waited for does not. */
export function isAlive(pid: number): boolean {
  return listProcesses().some((process) => process.pid === pid);
}

// Reads /proc, since a small container has no `ps`.
function listByProc(): Process[] {
  const processes: Process[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = /\) (\S) (\d+) [^)]*$/.exec(readOrEmpty(`/proc/${name}/stat`));
    if (!stat || stat[1] === 'Z' || stat[1] === 'X') continue;
    const command = readOrEmpty(`/proc/${name}/cmdline`).replaceAll('\0', ' ').trim();
    processes.push({ pid: Number(name), parent: Number(stat[2]), command });
  }
  return processes;
}

function listByPs(): Process[] {
  const lines = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,stat=,args='], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  const processes: Process[] = [];
  for (const line of lines.split('\n')) {
    const match = /^\s*(\d+)\s+(\d+)\s+(\S+)\s*(.*)$/.exec(line);
    if (match && !match[3]?.startsWith('Z')) {
      processes.push({ pid: Number(match[1]), parent: Number(match[2]), command: match[4] ?? '' });
    }
  }
  return processes;
}

// Postgres and Redis rename themselves, which overwrites their environment; their working folder
// still names the run.
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
