// Versioned defaults: what a job gets when nobody says. A version never changes; which one a spec without a version
// gets is a row in the database, so that deploying a build changes nothing for anybody.
import { asc, eq } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import type { Tx } from '../live/commit.ts';
import { hashOf } from '../replay/replay.ts';
import type { Layer, LayerValue, ResolvedValue } from '../spec/resolve.ts';
import { defaultsCurrent, defaultsVersion } from './table.ts';
import { builtinVersions } from './versions.ts';

export type Defaults = typeof defaultsVersion.$inferSelect & { isCurrent: boolean };

/**
 * Publishes the versions that come with the software where they are missing; on an empty database the newest becomes
 * current. Throws when a version in the database holds other values than ours of the same name.
 */
export async function ensureDefaults(tx: Tx): Promise<void> {
  for (const { version, documented, platform, notes } of builtinVersions) {
    const hash = hashOf({ documented, platform });
    await tx.insert(defaultsVersion).values({ version, documented, platform, notes, hash }).onConflictDoNothing();
    const [known] = await tx.select().from(defaultsVersion).where(eq(defaultsVersion.version, version));
    if (known?.hash !== hash) {
      throw new Error(`Defaults ${version} in the database differ from those of this build: a version never changes.`);
    }
  }
  const newest = builtinVersions.at(-1);
  if (newest) await tx.insert(defaultsCurrent).values({ version: newest.version }).onConflictDoNothing();
}

/** Every published version, in order of publication. */
export async function listDefaults(db: Db): Promise<Defaults[]> {
  const rows = await db
    .select()
    .from(defaultsVersion)
    .leftJoin(defaultsCurrent, eq(defaultsCurrent.version, defaultsVersion.version))
    .orderBy(asc(defaultsVersion.publishedAt), asc(defaultsVersion.version));
  return rows.map((row) => ({ ...row.defaults_version, isCurrent: row.defaults_current !== null }));
}

/** A version, the current one for null; null when it is not published. */
export async function getDefaults(db: Db, version: string | null): Promise<Defaults | null> {
  const all = await listDefaults(db);
  return all.find((row) => (version === null ? row.isCurrent : row.version === version)) ?? null;
}

/** The layer of a version: the documented values and the platform's, each with its source. */
export function defaultsLayer(defaults: Pick<Defaults, 'documented' | 'platform'>): Layer {
  const entries = (values: Record<string, unknown>, source: LayerValue['source']) =>
    Object.entries(values).map(([path, value]): [string, LayerValue] => [path, { source, value }]);
  return new Map([...entries(defaults.platform, 'PLATFORM'), ...entries(defaults.documented, 'DEFAULT')]);
}

/** Values of a version, ordered by path. */
export function defaultsValues(defaults: Defaults): ResolvedValue[] {
  return [...defaultsLayer(defaults)]
    .map(([path, value]) => ({ path, ...value, overrides: [] }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}
