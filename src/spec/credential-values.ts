// Whether a value under a name looks like a secret: by what the name says, and by what people and generators choose.

/** Words that say, as the end of a name, that its value is a secret whatever it looks like. */
const passwordNames =
  /(?:password|passwd|passphrase)$|^(?:db|my|sql|mysql|pg|redis|user|root|admin|ftp|smtp|mail|http|proxy|store)(?:pass|pwd)$/;
const secretNames = /(?:secret|credentials?|apikey|secretkey|privatekey|accesstoken|authtoken)$/;
/** The same, behind another word: a pass alone is one over data, and PWD a folder. */
const shortNames = /^(?:pass|pwd|pat)$/;
const secretKeys = /^(?:api|access|account|auth|encryption|license|master|private|secret|signing|storage|write)$/;
/** Passes over data, and filters. */
const plainPasses =
  /^(?:all|backward|band|by|data|dry|each|eval|final|first|forward|full|high|last|low|max|multi|num|one|per|second|single|test|third|train|two|val)$/;
/** Keys of data, and names of tokens of text: never secrets. */
const plainNames =
  /^(?:bos|cache|cls|column|dict|eos|feature|foreign|group|idempotency|image|index|join|label|lookup|mask|order|pad|partition|primary|public|sep|sort|special|state|stop|unk)$/;
/** Anywhere before `token` they count or mark tokens of text: `max_new_token`. */
const plainCounts = /^(?:avg|count|max|mean|min|new|next|num|per|total)$/;

/** A name as lower-case words: `wandbApiKey` and `WANDB_API_KEY` are wandb, api, key. */
export function wordsOf(name: string): string[] {
  const spaced = name.replace(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase();
  return spaced.split(/[^a-z]+/).filter((word) => word !== '');
}

/** Whether a secret may be called by this name as it is. */
export function isSecretName(name: string): boolean {
  const words = wordsOf(name);
  const last = words.at(-1) ?? '';
  return /^(?:key|token|url)$/.test(last) || isPasswordName(words) || secretNames.test(last);
}

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

/** E.g. `******`. */
function hasFewCharacters(value: string): boolean {
  return new Set(value).size < 4;
}

/** What a shell or a template fills in, a reference to a secret kept elsewhere, or a path. */
export function isReference(value: string): boolean {
  return (
    /^(?:[<{%[]|\$(?:[{(]|[A-Z_][A-Z0-9_]*(?![A-Za-z0-9_!@#%^&*])|[a-z_]+\d{0,2}(?![^\s/:])))/.test(value) ||
    /^(?:arn|vault|secret|file|env):|^\w[\w+.-]{0,30}:\/\//i.test(value) ||
    /^(?:~[\w.-]{0,32}|\.{1,2})?\/[A-Za-z]{2,20}\/|^(?:~|\.{1,2})\/|^\/[\w.-]{1,250}\.(?:json|pem|key|txt|ya?ml|env|crt|p12)$/.test(
      value,
    )
  );
}

/** The same for tokens and keys, which hold no blank and begin with no sign. */
function isPlaceholder(value: string): boolean {
  return /\s|^[$<{%[~./]|^(?:arn|vault|secret|file|env):|^\w[\w+.-]{0,30}:\/\//i.test(value);
}

/** Several words, which are no remark. */
function isPhrase(value: string): boolean {
  const isRemark = /^(?:ask|change|from|kept|none|not|same|see|set|stored|use|your)\b/i.test(value);
  return value.length >= 12 && /\S\s+\S/.test(value) && !isRemark;
}

/** Words, versions and numbers, e.g. `my-model/v2`. */
export function isWords(value: string): boolean {
  return value.split(/[-_.:/\s]/).every((part) => /^(?:[A-Za-z]?[a-z]{0,14}|[A-Z]{1,15}|v?\d{1,4})$/.test(part));
}

/** Under a name that says so: eight characters that are no words. */
function isPassword(value: string): boolean {
  return value.length >= 8 && !isWords(value);
}

/**
 * A run of sixteen letters and digits at least that changes often between lower case, upper case and digits: a quarter of
 * the neighbours of random text in base 64, 62 or 16 do at least, words and versions seldom do.
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
