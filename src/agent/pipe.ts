// Makes pipes for a command's output. Node's own are sockets, which a command cannot open again by
// name: `echo … > /dev/stderr` and `tee /dev/stderr`, common in shell scripts, would fail.
import { execFile } from 'node:child_process';
import { chownSync, closeSync, constants, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';

export type OutputPipe = {
  readonly reader: Readable;
  /** Descriptor for the command. */
  readonly writer: number;
  /** Closes this process's copy of the writing end, so that the reader ends with the command. */
  release(): void;
};

/**
 * Makes `count` pipes for a command under `uid`; null where there is no `mkfifo`. Leaves nothing in
 * the file system.
 */
export async function makePipes(count: number, uid?: number): Promise<OutputPipe[] | null> {
  const folder = await mkdtemp(join(tmpdir(), 'astraml-pipe-'));
  try {
    const files = Array.from({ length: count }, (_, index) => join(folder, String(index)));
    await promisify(execFile)('mkfifo', ['-m', '600', ...files]);
    // the command could not open them by name otherwise
    if (uid !== undefined) for (const file of files) chownSync(file, uid, uid);
    return files.map(openPipe);
  } catch {
    return null;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function openPipe(file: string): OutputPipe {
  // without O_NONBLOCK, open would wait for a writer
  const end = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(file, constants.O_WRONLY);
  const reader = new Socket({ fd: end, readable: true, writable: false });
  return { reader, writer, release: () => closeSync(writer) };
}
