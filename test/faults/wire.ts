// Listens to what Redis is told (MONITOR): nobody may delete what has not been delivered. An entry that MAXLEN cuts off
// is only late, since the spool sends it again; without this nobody would ever know why.
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Violation } from './checker.ts';

const forbidden = /"(xtrim|del|unlink)"|"xgroup" "(destroy|delconsumer)"|"xadd" "[^"]*" "(maxlen|minid)"/i;

export class Wire {
  readonly violations: Violation[] = [];
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  constructor(url: string) {
    this.#running = this.#listen(Number(new URL(url).port));
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }

  /** Whatever happens to the server: it is heard again as soon as it answers. */
  async #listen(port: number): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      const socket = connect({ port, host: '127.0.0.1', signal });
      socket.on('error', () => {});
      socket.write('MONITOR\r\n');
      const lines = createInterface({ input: socket }).on('error', () => {});
      lines.on('line', (line) => {
        const command = line.slice(0, 200);
        if (forbidden.test(command) && this.violations.length < 3)
          this.violations.push({ invariant: 'nothing undelivered is deleted', what: command });
      });
      await new Promise((done) => socket.once('close', done));
      await sleep(200);
    }
  }
}
