// The worker thread of the embedded engine. It opens the folder, serves the socket, and posts
// 'ready' or an error message to the main thread.
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite } from '@electric-sql/pglite';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';

const { folder, socketPath } = workerData as { folder: string; socketPath: string };
const parent = parentPort;
if (!parent) throw new Error('embedded-worker.ts runs as a worker thread only');

try {
  const engine = await PGlite.create(folder);
  // Clients use one connection at a time. The spare ones let a new connection open while the last
  // one is still closing.
  const server = new PGLiteSocketServer({ db: engine, path: socketPath, maxConnections: 4 });
  await server.start();
  parent.once('message', () => {
    void server
      .stop()
      .then(() => engine.close())
      .finally(() => process.exit(0));
  });
  parent.postMessage('ready');
} catch (error) {
  parent.postMessage(error instanceof Error ? error.message : String(error));
}
