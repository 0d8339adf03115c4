// The embedded engine: PostgreSQL as WebAssembly (PGlite) in a worker thread, since in the main thread it would starve
// the event loop, behind a unix socket. The socket is also the lock of the folder: two processes on one corrupt it.
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
 * The socket stands in a folder of mode 0700 with a name that nobody can foresee, so that no other user of the machine can
 * take its path first or connect. It cannot lie in the data folder, whose path may be too long: a socket's has 107 bytes
 * at most. This file of the data folder holds its path, for the next start to ask whether somebody is there.
 */
const pointerName = 'database.socket';
const folderPrefix = 'astraml-';
const socketName = 'db';

/** Starts the engine on `<dataDir>/database`, made when missing; takes 1–3 s. */
export async function startEmbedded(dataDir: string): Promise<{ socketPath: string; close(): Promise<void> }> {
  const folder = join(dataDir, 'database');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const pointer = join(dataDir, pointerName);
  const last = readPointer(pointer);
  for (const path of [last, olderSocketPath(folder)])
    if (path !== null && (await isAnswered(path))) throw new DataDirInUse(dataDir);
  if (last !== null) removeSocket(last);
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

/** The path of the socket that another start on the data folder made; null when there is none. */
function readPointer(pointer: string): string | null {
  try {
    const path = readFileSync(pointer, 'utf8');
    // The folder may come from somebody else: a path that is not one of ours is neither opened nor removed.
    return basename(path) === socketName && /^astraml-\w{6}$/.test(basename(dirname(path))) ? path : null;
  } catch {
    return null;
  }
}

/** Where builds up to 0.1.0 had the socket: anybody could take that path first, so that it counts only when it is ours. */
function olderSocketPath(folder: string): string | null {
  const name = createHash('sha256').update(realpathSync(folder)).digest('hex').slice(0, 20);
  const path = join(tmpdir(), `astraml-${name}.sock`);
  return lstatSync(path, { throwIfNoEntry: false })?.uid === process.getuid?.() ? path : null;
}

/** Removes a socket that nobody answers at, and its folder. */
function removeSocket(path: string): void {
  try {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) rmSync(path);
    rmdirSync(dirname(path));
  } catch {
    // It is gone, not ours, or holds something else: nothing of it is in the way.
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
