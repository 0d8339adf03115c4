// A data folder whose embedded database is already there. Its first start takes 10 s of a core, most of them for initdb, and
// some hundred tests want one: the files of a run share the first, as they share a Postgres cluster.
import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { openDatabase } from '../../src/database/database.ts';

/** Puts a migrated, empty database into a data folder that has none. Call it before anything opens the folder. */
export async function seedDataDir(dataDir: string): Promise<void> {
  const shared = process.env.ASTRAML_TEST_SHARED;
  const database = join(dataDir, 'database');
  if (!shared || existsSync(database)) return;
  const template = join(shared, 'embedded');
  if (!existsSync(template)) await makeTemplate(shared, template);
  mkdirSync(dataDir, { recursive: true });
  cpSync(template, database, { recursive: true });
}

async function makeTemplate(shared: string, template: string): Promise<void> {
  const own = mkdtempSync(join(shared, 'embedded-'));
  const database = await openDatabase({ url: null, dataDir: own });
  await database.close();
  try {
    renameSync(join(own, 'database'), template);
  } catch {
    // another file was first
  }
  rmSync(own, { recursive: true, force: true });
}
