// Prepares data folders with an embedded database. Its first start takes 10 s of a core, most for
// initdb, and some hundred tests need one: the test files of a run copy the first.
import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { openDatabase } from '../../src/database/database.ts';

/**
 * Copies a migrated, empty database into a data folder without one. Call it before any code opens
 * the folder.
 */
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
    // another test file was first
  }
  rmSync(own, { recursive: true, force: true });
}
