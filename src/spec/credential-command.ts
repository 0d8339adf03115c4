// Finds passwords in commands: behind a flag that takes one, e.g. `curl -u user:password`. Such a
// flag is no word that the search for names of secrets would find.
import { isReference } from './credential-values.ts';

/**
 * `flags` match the flags by which the program takes a password; the last group is the password.
 */
type Program = { name: string; flags: RegExp };

const word = String.raw`["']?([^\s"']{1,250})`;
const programs: Program[] = [
  { name: 'curl', flags: /(?:^|\s)(?:-[uU]|--user|--proxy-user)(?:\s{1,3}|=)?["']?[^\s:"']{0,100}:([^\s"']{1,250})/g },
  { name: '(?:mysql|mariadb)[a-z-]{0,20}', flags: new RegExp(String.raw`(?:^|\s)-p${word}`, 'g') },
  { name: 'sshpass', flags: new RegExp(String.raw`(?:^|\s)-p\s{0,3}${word}`, 'g') },
  { name: 'redis-cli', flags: new RegExp(String.raw`(?:^|\s)-a\s{1,3}${word}`, 'g') },
  { name: 'mongo[a-z]{0,20}', flags: new RegExp(String.raw`(?:^|\s)-p\s{1,3}${word}`, 'g') },
  {
    name: '(?:docker|podman|helm|oras) (?:registry )?login',
    flags: new RegExp(String.raw`(?:^|\s)-p\s{1,3}${word}`, 'g'),
  },
];
const named = programs.map(({ name, flags }) => ({
  called: new RegExp(String.raw`(?:^|[\s/"'${'`'}(])${name}(?=\s)`),
  flags,
}));

export const commandPatterns: readonly RegExp[] = [
  /[^;&|\n]+/g,
  ...named.flatMap(({ called, flags }) => [called, flags]),
];

/** Whether a command in the text gets a password by a flag. */
export function holdsCommandPassword(text: string): boolean {
  const candidates = named.filter(({ called }) => called.test(text));
  if (candidates.length === 0) return false;
  return (text.match(/[^;&|\n]+/g) ?? []).some((command) =>
    candidates.some((program) => isGivenPassword(command, program)),
  );
}

function isGivenPassword(command: string, { called, flags }: { called: RegExp; flags: RegExp }): boolean {
  const name = called.exec(command);
  if (!name) return false;
  const rest = command.slice(name.index + name[0].length);
  return [...rest.matchAll(flags)].some(([, password = '']) => !isReference(password) && !isNoPassword.test(password));
}

/** One repeated character, or a number that is rather a port. */
const isNoPassword = /^(?:(.)\1*|\d{1,5}(?::\d{1,5})?)$/;

/** Number of words that may stand before the program, e.g. `sudo`, `env`, `timeout 60`. */
const mostBefore = 20;

/**
 * Returns the program that a list of words starts, when it is one of those above: e.g. `curl` for
 * `/usr/bin/curl`.
 */
export function programOf(list: readonly unknown[]): string | null {
  for (const [index, item] of list.slice(0, mostBefore).entries()) {
    if (typeof item !== 'string' || item.length > 100) continue;
    const pair = `${item} ${list[index + 1] === 'login' ? 'login ' : ''}`;
    const match = named.map(({ called }) => called.exec(pair)).find((result) => result !== null);
    if (match && match.index + match[0].length >= pair.trimEnd().length) return pair.trimEnd();
  }
  return null;
}

/** Whether this word of the program's arguments is a password, or holds one. */
export function isCommandPassword(program: string, before: unknown, word: string): boolean {
  if (holdsCommandPassword(`${program} ${word}`)) return true;
  const isFlag = typeof before === 'string' && /^-{1,2}[\w-]{1,20}$/.test(before);
  if (!isFlag || holdsCommandPassword(`${program} ${before}`)) return false;
  return holdsCommandPassword(`${program} ${before} ${word}`);
}
