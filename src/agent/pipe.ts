// A pipe for a command's output. Those that Node makes are sockets, which a command cannot open again by name:
// `echo … > /dev/stderr` and `tee /dev/stderr`, of which shell scripts are full, would fail.
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
  /** Closes our copy of the writing end, so that the reader ends with the command. */
  release(): void;
};

/** So many pipes, for a command under this uid, or null where there is no `mkfifo`. Nothing is left in the file system. */
export async function makePipes(count: number, uid?: number): Promise<OutputPipe[] | null> {
  const folder = await mkdtemp(join(tmpdir(), 'astraml-pipe-'));
  try {
    const files = Array.from({ length: count }, (_, index) => join(folder, String(index)));
    await promisify(execFile)('mkfifo', ['-m', '600', ...files]);
    if (uid !== undefined) for (const file of files) chownSync(file, uid, uid); // else it cannot open them by name
    return files.map(openPipe);
  } catch {
    return null;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function openPipe(file: string): OutputPipe {
  const end = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK); // else it would wait for a writer
  const writer = openSync(file, constants.O_WRONLY);
  const reader = new Socket({ fd: end, readable: true, writable: false });
  return { reader, writer, release: () => closeSync(writer) };
}
