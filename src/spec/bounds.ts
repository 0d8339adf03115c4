// Bounds of the size of a job spec. One walk counts and stops early, before schemas and patterns
// read the spec, so that it costs no more than its bounds allow. No text of the spec is repeated in
// an issue.
import { type Issue, maxIssues } from '../errors.ts';
import { isCredential } from './credential.ts';

export const bounds = {
  /** Levels of lists and objects. */
  depth: 32,
  /** Items of lists and fields of objects, at any level. */
  values: 10_000,
  /** Names under `hyperparams`, at any level; a list counts as one. */
  hyperparams: 1_000,
  /** Characters of one name. */
  name: 200,
  /** Characters of one text of a hyperparameter or of a parameter of the augmentation. */
  text: 32_768,
  /** Characters of all names and texts. */
  characters: 262_144,
} as const;

/**
 * Returns an issue for each part that is too large. It stops at the first bound of the whole spec
 * that is exceeded.
 */
export function boundIssues(spec: unknown): Issue[] {
  const count = new Count();
  count.walk(spec);
  return count.issues;
}

class Count {
  readonly issues: Issue[] = [];
  readonly #path: string[] = [];
  #values = 0;
  #hyperparams = 0;
  #characters = 0;

  /** Counts a value; false to stop the walk. */
  walk(value: unknown): boolean {
    if (typeof value === 'string') return this.#text(value);
    if (typeof value === 'number' && !Number.isFinite(value)) {
      return this.#report(`${this.#place()} is too large a number.`, 'A number goes to ±1.8e308.');
    }
    if (typeof value !== 'object' || value === null) return true;
    const keys = Object.keys(value);
    if (keys.length > 0 && this.#path.length >= bounds.depth) {
      this.#path.length = 3;
      return this.#stop(`The spec is nested more than ${bounds.depth} deep`);
    }
    return keys.every((key) => this.#field(value, key));
  }

  #field(value: object, key: string): boolean {
    this.#values++;
    if (this.#values > bounds.values) return this.#stop(`The spec holds more than ${bounds.values} values`);
    if (!Array.isArray(value)) {
      if (this.#path[0] === 'hyperparams') this.#hyperparams++;
      if (this.#hyperparams > bounds.hyperparams) {
        this.#path.length = 1;
        return this.#stop(`hyperparams holds more than ${bounds.hyperparams} names, at all levels together`);
      }
      if (!this.#count(key.length)) return false;
      if (key.length > bounds.name) {
        const place = this.#path.length === 0 ? 'The spec' : this.#place();
        return this.#report(`${place} has a name of ${key.length} characters; ${bounds.name} are the most.`);
      }
    }
    this.#path.push(key);
    const goesOn = this.walk((value as Record<string, unknown>)[key]);
    this.#path.pop();
    return goesOn;
  }

  #text(text: string): boolean {
    if (!this.#count(text.length)) return false;
    // Other fields have bounds of their own.
    const isFree = this.#path[0] === 'hyperparams' || this.#path[0] === 'augmentation';
    if (!isFree || text.length <= bounds.text) return true;
    return this.#report(`${this.#place()} has ${text.length} characters; ${bounds.text} are the most.`);
  }

  #count(characters: number): boolean {
    this.#characters += characters;
    if (this.#characters <= bounds.characters) return true;
    this.#path.length = 0;
    return this.#stop(`The names and texts of the spec have more than ${bounds.characters} characters together`);
  }

  #stop(message: string): false {
    this.#report(`${message}.`, 'Keep larger things where the job can fetch them, and name the place here.');
    return false;
  }

  #report(message: string, hint?: string): boolean {
    const path = this.#shownPath();
    this.issues.push({ code: 'OUT_OF_RANGE', path, specPath: path.join('.'), message, hint });
    return this.issues.length <= maxIssues;
  }

  #place(): string {
    return this.#shownPath().join('.') || 'The spec';
  }

  /** The path to show; a name in it that is a credential is not repeated. */
  #shownPath(): string[] {
    return this.#path.map((key) => (isCredential(key) ? '…' : key));
  }
}
