// Ends the process when the embedded database is dead: it runs in this process, so a new process is
// the only way to get it back.
import type { Logger } from 'pino';
import type { Database } from '../../database/database.ts';

/** Pause between two pings. */
const everyMs = 10_000;
/** An embedded database without an answer for this long is dead. */
const deadMs = 30_000;

export function watchEmbedded(database: Database, log: Logger): { stop(): Promise<void> } {
  let isStopped = false;
  const timer = setInterval(() => {
    database.ping(deadMs).catch(() => {
      if (isStopped) return;
      log.fatal('The embedded database answers no more.');
      process.exit(1);
    });
  }, everyMs).unref();
  return {
    async stop() {
      isStopped = true;
      clearInterval(timer);
    },
  };
}
