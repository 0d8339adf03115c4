// A TCP proxy on loopback that can cut its connections, delay data, or hold it: then both sides
// stay connected and get nothing.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export class Proxy {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #held = false;
  #delayMs = 0;

  private constructor(server: Server, targets: readonly number[]) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    let next = 0;
    server.on('connection', (near) => {
      const port = targets[next++ % targets.length] ?? 0;
      this.#join(near, connect({ port, host: '127.0.0.1' }));
    });
  }

  /** Opens a proxy; each connection goes to the next of the ports in turn. */
  static async open(...targets: number[]): Promise<Proxy> {
    const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new Proxy(server, targets);
  }

  /** Resets every connection; new ones are accepted. */
  cut(): void {
    for (const socket of this.#sockets) {
      // libuv refuses to reset a socket that is shutting down, and Node would then wait for it for
      // ever at exit.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }

  /** Holds all data until `pass()`. */
  hold(): void {
    this.#held = true;
    for (const socket of this.#sockets) socket.pause();
  }

  /** Delays all data by `delayMs`, in order. */
  slow(delayMs: number): void {
    this.#delayMs = delayMs;
  }

  /** Ends holding and delaying. */
  pass(): void {
    this.#held = false;
    this.#delayMs = 0;
    for (const socket of this.#sockets) socket.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #join(near: Socket, far: Socket): void {
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(from);
      from.setNoDelay(true);
      let last: Promise<unknown> = Promise.resolve();
      from.on('data', (chunk) => {
        const write = () => {
          if (to.destroyed || to.write(chunk)) return;
          from.pause();
          to.once('drain', () => void (this.#held || from.resume()));
        };
        if (this.#delayMs === 0) return void (last = last.then(write));
        const until = new Promise((done) => setTimeout(done, this.#delayMs));
        last = last.then(() => until).then(write);
      });
      from.on('error', () => {});
      from.on('end', () => void last.then(() => to.end()));
      from.on('close', () => {
        this.#sockets.delete(from);
        void last.then(() => to.destroy());
      });
      if (!this.#held) from.resume();
      else from.pause();
    }
  }
}
