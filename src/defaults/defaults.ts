// Versioned defaults: the values of a job that neither spec, policy nor project sets. A version
// never changes. The current one, for specs that name none, is a row in the database, so a new
// build changes nothing for anybody. Versions are rows as well, so all gateways have a new one at
// once.
import { eq } from 'drizzle-orm';
import { type Actor, requirePlatformScope } from '../actor.ts';
import { closest } from '../closest.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { invalid, type Issue, notFound, Refusal } from '../errors.ts';
import { recordEvent } from '../event/event.ts';
import type { Tx } from '../live/commit.ts';
import { canonical, hashOf } from '../replay/replay.ts';
import { findCredentials } from '../spec/credential.ts';
import type { Layer, LayerValue, ResolvedValue } from '../spec/resolve.ts';
import { defaultsCurrent, defaultsVersion } from './table.ts';
import { readValues, unknownPaths } from './values.ts';
import { type BuiltinVersion, builtinVersions, compareVersions } from './versions.ts';

export type Defaults = typeof defaultsVersion.$inferSelect & { isCurrent: boolean };

/**
 * Publishes the versions that come with the software and are missing. On an empty database the
 * newest becomes current; on any other the current one stays. A version of the same name that an
 * administrator published stays as it is. Throws when a version of the software is stored with
 * other values.
 */
export async function ensureDefaults(tx: Tx, builtin: readonly BuiltinVersion[] = builtinVersions): Promise<void> {
  for (const { version, documented, platform, notes } of builtin) {
    const hash = hashOf({ documented, platform });
    await tx.insert(defaultsVersion).values({ version, documented, platform, notes, hash }).onConflictDoNothing();
    const [known] = await tx.select().from(defaultsVersion).where(eq(defaultsVersion.version, version));
    if (known?.hash !== hash && known?.publishedBy === null) {
      throw new Error(`Defaults ${version} in the database differ from those of this build: a version never changes.`);
    }
  }
  const newest = builtin.at(-1);
  if (newest) await tx.insert(defaultsCurrent).values({ version: newest.version }).onConflictDoNothing();
}

export type NewDefaults = {
  version: string;
  /** Nested as in a job spec file. */
  values: Record<string, unknown>;
  notes: string | null;
  makeCurrent: boolean;
};

const versionForm = /^v\d{1,6}(\.\d{1,6}){1,2}(-[a-z0-9]+([.-][a-z0-9]+)*)?$/;
const maxNotes = 20_000;

/**
 * Publishes a version; needs ADMIN on the platform. Publishing the same again succeeds and changes
 * nothing. Throws INVALID_INPUT with every problem. Throws ALREADY_EXISTS when the version has
 * other values, or when it should become current and is not: a late repeat must not undo a later
 * choice.
 */
export async function publishDefaults(tx: Tx, actor: Actor, input: NewDefaults): Promise<Defaults> {
  requirePlatformScope(actor, 'ADMIN', ['input']);
  const { version, notes, makeCurrent } = input;
  const { documented, platform, issues } = readValues(input.values, ['input', 'values']);
  const all = [...headIssues(input), ...issues];
  if (all.length > 0) throw invalid(all);
  const hash = hashOf({ documented, platform });
  const row = { version, documented, platform, notes, hash, publishedBy: actor.tokenId };
  const [made] = await tx.insert(defaultsVersion).values(row).onConflictDoNothing().returning();
  if (!made) {
    const known = await getDefaults(tx, version);
    const isSame = known?.hash === hash && canonical(known.notes) === canonical(notes);
    if (known && isSame && (known.isCurrent || !makeCurrent)) return known;
    throw alreadyPublished(version, isSame);
  }
  const count = Object.keys(documented).length + Object.keys(platform).length;
  await recordEvent(tx, {
    type: 'DEFAULTS_PUBLISHED',
    projectId: null,
    actorId: actor.tokenId,
    message: `${actor.name} published defaults ${version}, ${count} values.`,
    data: { version, hash },
  });
  if (makeCurrent) await moveCurrent(tx, actor, version);
  return { ...made, isCurrent: makeCurrent };
}

function headIssues({ version, notes }: NewDefaults): Issue[] {
  const issues: Issue[] = [];
  if (!versionForm.test(version) || version.length > 50) {
    const message = 'version is no version of defaults.';
    const hint = 'A v and two or three numbers, e.g. v2.2, v2.2.1 or v2.2-rc1.';
    issues.push({ code: 'MALFORMED', path: ['input', 'version'], message, hint });
  }
  if (notes !== null && (notes.length > maxNotes || notes.includes('\0') || !notes.isWellFormed())) {
    const message = `notes takes ${maxNotes} characters of Unicode text at most, without NUL.`;
    issues.push({ code: 'OUT_OF_RANGE', path: ['input', 'notes'], message });
  }
  return [...issues, ...findCredentials(notes, ['input', 'notes'])];
}

function alreadyPublished(version: string, isSame: boolean): Refusal {
  const what = isSame ? 'with these values, and another version is current' : 'with other values or notes';
  return new Refusal('ALREADY_EXISTS', `Defaults ${version} are published already, ${what}.`, {
    path: ['input', 'version'],
    hint: isSame ? 'Make them current with setCurrentDefaults.' : 'A version never changes: publish another one.',
  });
}

/**
 * Makes a published version the current one, which specs without a version get; needs ADMIN on the
 * platform. Submitted jobs keep theirs. Throws NOT_FOUND, or INVALID_STATE for a version that this
 * gateway does not support.
 */
export async function setCurrentDefaults(tx: Tx, actor: Actor, version: string): Promise<Defaults> {
  const path = ['input', 'version'];
  requirePlatformScope(actor, 'ADMIN', ['input']);
  const known = await getDefaults(tx, version);
  if (!known) throw notFound('Defaults', version, path, versionHint(version, await listDefaults(tx)));
  const unknown = unknownPaths(known);
  if (unknown.length > 0) {
    throw new Refusal('INVALID_STATE', `Defaults ${version} hold ${unknown.join(', ')}, unknown to this gateway.`, {
      path,
      hint: 'Update every gateway first, then ask an updated one.',
      currentState: 'UNKNOWN_PATH',
    });
  }
  await moveCurrent(tx, actor, version);
  return { ...known, isCurrent: true };
}

async function moveCurrent(tx: Tx, actor: Actor, version: string): Promise<void> {
  const [before] = await tx.select().from(defaultsCurrent).for('update');
  if (before?.version === version) return;
  await tx.update(defaultsCurrent).set({ version, changedAt: now });
  await recordEvent(tx, {
    type: 'DEFAULTS_CHOSEN',
    projectId: null,
    actorId: actor.tokenId,
    message: `${actor.name} made defaults ${version} current, after ${before?.version ?? 'none'}.`,
    data: { from: before?.version ?? null, to: version },
  });
}

/** Lists every published version, in order of the version numbers. */
export async function listDefaults(db: Db): Promise<Defaults[]> {
  const rows = await withCurrent(db);
  return rows.map(toDefaults).sort((a, b) => compareVersions(a.version, b.version));
}

/** Returns a version, the current one for a null `version`; null when it is not published. */
export async function getDefaults(db: Db, version: string | null): Promise<Defaults | null> {
  if (version?.includes('\0')) return null; // Postgres takes no NUL in a text
  const condition = version === null ? eq(defaultsCurrent.only, true) : eq(defaultsVersion.version, version);
  const [row] = await withCurrent(db).where(condition);
  return row ? toDefaults(row) : null;
}

function withCurrent(db: Db) {
  return db
    .select()
    .from(defaultsVersion)
    .leftJoin(defaultsCurrent, eq(defaultsCurrent.version, defaultsVersion.version))
    .$dynamic();
}

type Row = { defaults_version: typeof defaultsVersion.$inferSelect; defaults_current: object | null };

function toDefaults(row: Row): Defaults {
  return { ...row.defaults_version, isCurrent: row.defaults_current !== null };
}

/**
 * Throws UNAVAILABLE for a version with a path that this build does not support, since a newer
 * build published it. Without the path, the same spec would make another job with another hash than
 * on an updated gateway. A caller that tries again may reach one.
 */
export function requireUsable(defaults: Defaults): void {
  const unknown = unknownPaths(defaults);
  if (unknown.length === 0) return;
  const message = `Defaults ${defaults.version} hold ${unknown.join(', ')}, which this gateway is too old to know.`;
  throw new Refusal('UNAVAILABLE', message, {
    hint: 'Send it again: an updated gateway takes it. Or name an older version in defaults_version.',
    retryAfterSeconds: 5,
  });
}

/** Returns the hint for a version that is not published: the closest name, or all names. */
export function versionHint(version: string, published: readonly Pick<Defaults, 'version'>[]): string {
  const known = published.map((defaults) => defaults.version);
  const near = closest(version, known);
  return near ? `Did you mean "${near}"?` : `Published: ${known.join(', ')}.`;
}

export type DefaultsChange = { path: string; from: unknown; to: unknown };

/** Returns the paths whose values differ, in order; null where a version has none. */
export function diffDefaults(from: Defaults, to: Defaults): DefaultsChange[] {
  const [left, right] = [defaultsLayer(from), defaultsLayer(to)];
  const paths = [...new Set([...left.keys(), ...right.keys()])].sort();
  return paths
    .map((path) => ({ path, from: left.get(path)?.value ?? null, to: right.get(path)?.value ?? null }))
    .filter((change) => canonical(change.from) !== canonical(change.to));
}

/**
 * Returns the layer of a version: the documented values and the platform's, each with its source.
 */
export function defaultsLayer(defaults: Pick<Defaults, 'documented' | 'platform'>): Layer {
  const entries = (values: Record<string, unknown>, source: LayerValue['source']) =>
    Object.entries(values).map(([path, value]): [string, LayerValue] => [path, { source, value }]);
  return new Map([...entries(defaults.platform, 'PLATFORM'), ...entries(defaults.documented, 'DEFAULT')]);
}

/** Returns the values of a version, ordered by path. */
export function defaultsValues(defaults: Defaults): ResolvedValue[] {
  return [...defaultsLayer(defaults)]
    .map(([path, value]) => ({ path, ...value, overrides: [] }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}
