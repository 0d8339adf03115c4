// SIGINT and SIGTERM for the commands that stay up.

/** Resolves at the first signal; a second one ends the process at once. */
export function signalled(): Promise<void> {
  return new Promise((resolve) => {
    let count = 0;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        if (++count > 1) process.exit(130);
        resolve();
      });
    }
  });
}
