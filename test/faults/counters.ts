// The gateways' own figures, summed over all their lives: not to judge by, only to prove that rare paths were taken.

export class Counters {
  readonly #ports: number[];
  readonly #ended = new Map<string, number>();
  readonly #current: Map<string, number>[];
  readonly #timer: NodeJS.Timeout;

  constructor(ports: number[]) {
    this.#ports = ports;
    this.#current = ports.map(() => new Map());
    this.#timer = setInterval(() => void this.read(), 200).unref();
  }

  /** Reads them now; a gateway that does not answer keeps what it said last. */
  async read(): Promise<void> {
    await Promise.all(this.#ports.map((port, index) => this.#readOne(port, index)));
  }

  /** Over all gateways and all their lives, as far as it was seen. */
  sum(name: string): number {
    const now = this.#current.reduce((sum, figures) => sum + (figures.get(name) ?? 0), 0);
    return now + (this.#ended.get(name) ?? 0);
  }

  /** Highest value that a gauge has now, over the gateways. */
  highest(name: string): number {
    return Math.max(...this.#current.map((figures) => figures.get(name) ?? 0));
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #readOne(port: number, index: number): Promise<void> {
    const text = await fetch(`http://127.0.0.1:${port}/metrics`, { signal: AbortSignal.timeout(1_000) })
      .then((answer) => answer.text())
      .catch(() => null);
    if (text === null) return;
    const figures = new Map<string, number>();
    for (const [, name = '', value] of text.matchAll(/^(\w+(?:_total|_bytes|_fds|_count)) (\S+)$/gm)) {
      figures.set(name, Number(value));
    }
    const before = this.#current[index] ?? new Map<string, number>();
    const started = 'process_start_time_seconds';
    const start = Number(new RegExp(`^${started} (\\S+)$`, 'm').exec(text)?.[1] ?? 0);
    figures.set(started, start);
    if (before.has(started) && before.get(started) !== start) {
      for (const [name, value] of before) this.#ended.set(name, (this.#ended.get(name) ?? 0) + value);
    }
    this.#current[index] = figures;
  }
}
