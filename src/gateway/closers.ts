// What a start has opened, to be closed in reverse. The `AsyncDisposableStack` of the language would
// do, but Node 22 does not have it.

export class Closers {
  readonly #stack: (() => unknown)[] = [];

  defer(close: () => unknown): void {
    this.#stack.push(close);
  }

  /** Closes all, last first. One that fails does not keep the others open; then throws the first failure. */
  async close(): Promise<void> {
    const failures: unknown[] = [];
    for (let close = this.#stack.pop(); close; close = this.#stack.pop()) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
