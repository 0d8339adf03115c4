// The files of a spool. One is open at a time, and changes run one after the other (`inTurn`).
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export class SegmentFiles {
  readonly #folder: string;
  #opened: { file: string; handle: FileHandle } | undefined;
  /** Resolves when all changes that were begun have ended. */
  #turn: Promise<void> = Promise.resolve();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Path of the segment that begins with this number. */
  pathOf(first: number): string {
    return join(this.#folder, `${String(first).padStart(16, '0')}.jsonl`);
  }

  /** Runs changes one after the other. The methods below are called inside of them. */
  inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {}); // the caller gets the error, and the next change goes on
    return done;
  }

  /** Writes into a file, made if it is missing, and resolves once the bytes are on disk. */
  async write(file: string, bytes: Buffer, position: number): Promise<void> {
    const handle = await this.#open(file);
    for (let done = 0; done < bytes.length;) {
      done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
    }
    await handle.datasync();
  }

  /** Replaces a file as a whole or not at all. */
  async replace(file: string, bytes: Buffer): Promise<void> {
    await this.#close(file);
    await writeFile(`${file}.new`, bytes, { mode: 0o600, flush: true });
    await rename(`${file}.new`, file);
  }

  async remove(file: string): Promise<void> {
    await this.#close(file);
    await rm(file, { force: true });
  }

  async removeAll(): Promise<void> {
    await this.#close();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #open(file: string): Promise<FileHandle> {
    if (this.#opened?.file === file) return this.#opened.handle;
    await this.#close();
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    this.#opened = { file, handle: await open(file, constants.O_WRONLY | constants.O_CREAT, 0o600) };
    return this.#opened.handle;
  }

  /** Closes the open file, if it is this one or none is named. */
  async #close(file?: string): Promise<void> {
    const opened = this.#opened;
    if (!opened || (file !== undefined && opened.file !== file)) return;
    this.#opened = undefined;
    await opened.handle.close();
  }
}
