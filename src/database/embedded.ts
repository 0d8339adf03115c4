// The embedded engine: PostgreSQL as WebAssembly (PGlite) behind a unix socket, in a worker thread,
// since in the main thread it would starve the event loop. The socket also locks the data folder:
// two processes on one folder corrupt it.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Worker } from 'node:worker_threads';

/** The folder of the embedded database is open in another process. */
export class DataDirInUse extends Error {
  constructor(dataDir: string) {
    super(
      `The data folder ${dataDir} is in use by another astraml process. Stop that one, or choose another --data-dir.`,
    );
    this.name = 'DataDirInUse';
  }
}

/**
 * `<dataDir>/database.socket` holds the path of the socket, so that the next start can ask whether
 * a process answers there. The socket itself lies in a temporary folder of mode 0700 with a random
 * name, so that no other user of the machine can take its path first or connect. The data folder
 * would not do: its path may be longer than the 107 bytes that a socket's path may have.
 */
const pointerName = 'database.socket';
const folderPrefix = 'astraml-';
const socketName = 'db';

/**
 * Starts the engine on `<dataDir>/database`, which is made when missing. Takes 1–3 s. Throws
 * `DataDirInUse` when another process has the folder open.
 */
export async function startEmbedded(dataDir: string): Promise<{ socketPath: string; close(): Promise<void> }> {
  const folder = join(dataDir, 'database');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const pointer = join(dataDir, pointerName);
  const earlierSocket = readPointer(pointer);
  for (const path of [earlierSocket, olderSocketPath(folder)])
    if (path !== null && (await isAnswered(path))) throw new DataDirInUse(dataDir);
  if (earlierSocket !== null) removeSocket(earlierSocket);
  const socketPath = join(mkdtempSync(join(tmpdir(), folderPrefix)), socketName);
  writeFileSync(pointer, socketPath, { mode: 0o600 });
  const remove = () => {
    removeSocket(socketPath);
    rmSync(pointer, { force: true });
  };

  const worker = new Worker(new URL('./embedded-worker.ts', import.meta.url), { workerData: { folder, socketPath } });
  const exited = once(worker, 'exit');
  const [message] = (await Promise.race([
    once(worker, 'message'),
    exited.then(() => ['The embedded database ended at once.']),
  ])) as [unknown];
  if (message !== 'ready') {
    await worker.terminate();
    remove();
    throw new Error(`The embedded database cannot start on ${folder}: ${String(message)}`);
  }
  return {
    socketPath,
    async close() {
      worker.postMessage('close');
      await exited;
      remove();
    },
  };
}

/** Returns the path of the socket of an earlier start on this data folder; null for none. */
function readPointer(pointer: string): string | null {
  try {
    const path = readFileSync(pointer, 'utf8');
    // The data folder may have been written by another user: a path that this program did not make
    // is neither opened nor removed.
    return basename(path) === socketName && /^astraml-\w{6}$/.test(basename(dirname(path))) ? path : null;
  } catch {
    return null;
  }
}

/**
 * Path of the socket of builds up to 0.1.0, for a process of such a build on this folder. Any user
 * could take that path first, so it counts only when it belongs to this user.
 */
function olderSocketPath(folder: string): string | null {
  const name = createHash('sha256').update(realpathSync(folder)).digest('hex').slice(0, 20);
  const path = join(tmpdir(), `astraml-${name}.sock`);
  return lstatSync(path, { throwIfNoEntry: false })?.uid === process.getuid?.() ? path : null;
}

/** Removes a socket without a process behind it, and its folder. */
function removeSocket(path: string): void {
  try {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) rmSync(path);
    rmdirSync(dirname(path));
  } catch {
    // The socket or its folder is gone, of another user, or not empty: it is not in the way.
  }
}

async function isAnswered(socketPath: string): Promise<boolean> {
  const socket = connect(socketPath);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
