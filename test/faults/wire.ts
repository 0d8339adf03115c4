// Listens to what Redis is told (MONITOR): nobody may delete what has not been delivered. An entry that MAXLEN cuts off
// is only late, since the spool sends it again; without this nobody would ever know why.
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { monitor } from '../support/monitor.ts';
import type { Violation } from './evidence.ts';

/** A stream that takes no more entries is deleted once it is empty; only then. */
const exhausting = /"xadd" "(astraml:uplink:\d)" "18446744073709551615-18446744073709551615"/i;
const deleting = /"del" "(astraml:uplink:\d)"/i;
const forbidden = /"(xtrim|del|unlink)"|"xgroup" "(destroy|delconsumer)"|"xadd" "[^"]*" "(maxlen|minid)"/i;

export class Wire {
  readonly violations: Violation[] = [];
  readonly #running: Promise<void>;
  #socket: Socket | undefined;
  #ended = false;
  readonly #exhausted = new Set<string>();

  constructor(url: string) {
    this.#running = this.#listen(Number(new URL(url).port));
  }

  async stop(): Promise<void> {
    this.#ended = true;
    this.#socket?.destroy();
    await this.#running;
  }

  /** Whatever happens to the server: it is heard again as soon as it answers. */
  async #listen(port: number): Promise<void> {
    while (!this.#ended) {
      const socket = monitor(port, (line) => {
        const command = line.slice(0, 200);
        const exhausted = exhausting.exec(command)?.[1];
        if (exhausted) this.#exhausted.add(exhausted);
        if (this.#exhausted.delete(deleting.exec(command)?.[1] ?? '')) return;
        if (forbidden.test(command) && this.violations.length < 3)
          this.violations.push({ invariant: 'nothing undelivered is deleted', what: command });
      });
      this.#socket = socket;
      await new Promise((done) => socket.once('close', done));
      await sleep(200);
    }
  }
}
