// Tells by name and value whether a value is probably a secret: by words of the name, and by the
// kind of text that people and generators choose.

/** Last words of a name that mark any value as a secret, whatever it looks like. */
const passwordNames =
  /(?:password|passwd|passphrase)$|^(?:db|my|sql|mysql|pg|redis|user|root|admin|ftp|smtp|mail|http|proxy|store)(?:pass|pwd)$/;
const secretNames = /(?:secret|credentials?|apikey|secretkey|privatekey|accesstoken|authtoken)$/;
/**
 * Short last words that mark a secret only behind another word: a `pass` alone is one over data,
 * `PWD` a folder.
 */
const shortNames = /^(?:pass|pwd|pat)$/;
const secretKeys = /^(?:api|access|account|auth|encryption|license|master|private|secret|signing|storage|write)$/;
/** Words before `pass` that mean passes over data, or filters. */
const plainPasses =
  /^(?:all|backward|band|by|data|dry|each|eval|final|first|forward|full|high|last|low|max|multi|num|one|per|second|single|test|third|train|two|val)$/;
/** Words before `key` or `token` that mean keys of data or tokens of text, which are no secrets. */
const plainNames =
  /^(?:bos|cache|cls|column|dict|eos|feature|foreign|group|idempotency|image|index|join|label|lookup|mask|order|pad|partition|primary|public|sep|sort|special|state|stop|unk)$/;
/** Words that, anywhere before `token`, mean tokens of text: `max_new_token`. */
const plainCounts = /^(?:avg|count|max|mean|min|new|next|num|per|total)$/;

/** Splits a name into lower-case words: `wandbApiKey` and `WANDB_API_KEY` give wandb, api, key. */
export function wordsOf(name: string): string[] {
  const spaced = name.replace(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase();
  return spaced.split(/[^a-z]+/).filter((word) => word !== '');
}

/** Whether the name is already a good name for a secret. */
export function isSecretName(name: string): boolean {
  const words = wordsOf(name);
  const last = words.at(-1) ?? '';
  return /^(?:key|token|url)$/.test(last) || isPasswordName(words) || secretNames.test(last);
}

/** Whether a value under this name looks like a secret. */
export function looksSecret(name: string, value: string): boolean {
  const words = wordsOf(name);
  const [before = '', last = ''] = [words.at(-2), words.at(-1)];
  if (last === '' || hasFewCharacters(value)) return false;
  if (isPasswordName(words)) return !isReference(value) && (isPhrase(value) || isPassword(value));
  if (last === 'token' && words.includes('astraml')) return value.length >= 32 && !isPlaceholder(value);
  if (secretNames.test(last) || (last === 'key' && secretKeys.test(before))) {
    return !/\s/.test(value) && !isReference(value) && isPassword(value);
  }
  if ((last !== 'key' && last !== 'token') || plainNames.test(before)) return false;
  if (last === 'token' && words.some((word) => plainCounts.test(word))) return false;
  const isId = /^[a-z]+_[0-9a-z]{26}$|^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value);
  return !isPlaceholder(value) && !isId && isRandom(value);
}

function isPasswordName(words: readonly string[]): boolean {
  const [before = '', last = ''] = [words.at(-2), words.at(-1)];
  return passwordNames.test(last) || (shortNames.test(last) && before !== '' && !plainPasses.test(before));
}

/** Whether a text has fewer than four different characters, e.g. `******`. */
function hasFewCharacters(value: string): boolean {
  return new Set(value).size < 4;
}

/**
 * Whether a text is filled in by a shell or a template, refers to a secret kept elsewhere, or is a
 * path.
 */
export function isReference(value: string): boolean {
  return (
    /^(?:[<{%[]|\$(?:[{(]|[A-Z_][A-Z0-9_]*(?![A-Za-z0-9_!@#%^&*])|[a-z_]+\d{0,2}(?![^\s/:])))/.test(value) ||
    /^(?:arn|vault|secret|file|env):|^\w[\w+.-]{0,30}:\/\//i.test(value) ||
    /^(?:~[\w.-]{0,32}|\.{1,2})?\/[A-Za-z]{2,20}\/|^(?:~|\.{1,2})\/|^\/[\w.-]{1,250}\.(?:json|pem|key|txt|ya?ml|env|crt|p12)$/.test(
      value,
    )
  );
}

/** Like `isReference` for tokens and keys, which hold no blank and begin with a letter or digit. */
function isPlaceholder(value: string): boolean {
  return /\s|^[$<{%[~./]|^(?:arn|vault|secret|file|env):|^\w[\w+.-]{0,30}:\/\//i.test(value);
}

/** Whether a text is a passphrase: several words that are no remark such as "see the wiki". */
function isPhrase(value: string): boolean {
  const isRemark = /^(?:ask|change|from|kept|none|not|same|see|set|stored|use|your)\b/i.test(value);
  return value.length >= 12 && /\S\s+\S/.test(value) && !isRemark;
}

/** Whether a text consists of words, versions and numbers, e.g. `my-model/v2`. */
export function isWords(value: string): boolean {
  return value.split(/[-_.:/\s]/).every((part) => /^(?:[A-Za-z]?[a-z]{0,14}|[A-Z]{1,15}|v?\d{1,4})$/.test(part));
}

/** Whether a text could be a password: at least eight characters that are no words. */
function isPassword(value: string): boolean {
  return value.length >= 8 && !isWords(value);
}

/**
 * Whether a text has a run of at least 16 letters and digits that changes often between lower case,
 * upper case and digits. In random text of base 64, 62 or 16 at least a quarter of neighbours
 * differ so; in words and versions few do.
 */
export function isRandom(value: string): boolean {
  return (value.match(/[A-Za-z0-9+]{16,}/g) ?? []).some((run) => {
    let [changes, digits] = [0, 0];
    for (let index = 0, before = 0; index < run.length; index++) {
      const kind = kindOfCharacter(run.charCodeAt(index));
      if (index > 0 && kind !== before) changes++;
      if (kind === 0) digits++;
      before = kind;
    }
    return digits > 0 && changes / (run.length - 1) >= 0.25;
  });
}

/** 0 for a digit, 1 for a lower-case letter, 2 for any other. */
function kindOfCharacter(code: number): number {
  if (code >= 48 && code <= 57) return 0;
  return code >= 97 && code <= 122 ? 1 : 2;
}
