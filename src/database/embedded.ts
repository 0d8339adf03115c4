// The embedded engine: PostgreSQL as WebAssembly (PGlite) in a worker thread, since in the main thread it would starve
// the event loop, behind a unix socket. The socket is also the lock of the folder: two processes on one corrupt it.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, realpathSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

/** Starts the engine on `<dataDir>/database`, made when missing; takes 1–3 s. */
export async function startEmbedded(dataDir: string): Promise<{ socketPath: string; close(): Promise<void> }> {
  const folder = join(dataDir, 'database');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // A socket's path has 107 bytes at most, so it cannot lie in the folder itself.
  const name = createHash('sha256').update(realpathSync(folder)).digest('hex').slice(0, 20);
  const socketPath = join(tmpdir(), `astraml-${name}.sock`);
  if (await isAnswered(socketPath)) throw new DataDirInUse(dataDir);
  rmSync(socketPath, { force: true });

  const worker = new Worker(new URL('./embedded-worker.ts', import.meta.url), { workerData: { folder, socketPath } });
  const exited = once(worker, 'exit');
  const [message] = (await Promise.race([
    once(worker, 'message'),
    exited.then(() => ['The embedded database ended at once.']),
  ])) as [unknown];
  if (message !== 'ready') {
    await worker.terminate();
    throw new Error(`The embedded database cannot start on ${folder}: ${String(message)}`);
  }
  return {
    socketPath,
    async close() {
      worker.postMessage('close');
      await exited;
      rmSync(socketPath, { force: true });
    },
  };
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
