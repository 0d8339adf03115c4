// SIGINT and SIGTERM for the commands that stay up.

/** Resolves at the first signal; a second one ends the process at once. */
export function signalled(): Promise<void> {
  return signalledTwice(1).first;
}

/** Resolve at the first and at the second signal; one beyond the last that is expected ends the process at once. */
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
