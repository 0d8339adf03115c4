// SIGINT and SIGTERM for commands that run until they are stopped.

/** Resolves at the first signal; a second one exits the process at once. */
export function signalled(): Promise<void> {
  return signalledTwice(1).first;
}

/**
 * Returns promises of the first and the second signal. A signal beyond `expected` exits the process
 * at once.
 */
export function signalledTwice(expected = 2): { first: Promise<void>; second: Promise<void> } {
  const first = Promise.withResolvers<void>();
  const second = Promise.withResolvers<void>();
  let count = 0;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (++count > expected) process.exit(130);
      (count === 1 ? first : second).resolve();
    });
  }
  return { first: first.promise, second: second.promise };
}
