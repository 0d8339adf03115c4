// Reading values that somebody else wrote (job spec, environment, command line). Rule: a value of the wrong kind is
// refused by name, with what would be right; what nobody asked for can be listed.

/** A mistake in the input; the trainer prints the message and exits with status 2. */
export class Refusal extends Error {}

export type Rule = { default: number; min?: number; max?: number; above?: number; whole?: boolean };

/** The fields of one JSON object. `read` holds what was asked for, with defaults; `rest` the names nobody asked for. */
export type Fields = {
  number(name: string, rule: Rule): number;
  text(name: string): string | undefined;
  flag(name: string, otherwise: boolean): boolean;
  raw(name: string): unknown;
  read: Map<string, unknown>;
  rest(): string[];
};

/** `where` names the object in messages, e.g. `hyperparams`. Missing and null are the same: an object without fields. */
export function readFields(value: unknown, where: string): Fields {
  if (value !== undefined && value !== null && !isRecord(value)) throw new Refusal(`${where} is not an object`);
  const record = value ?? {};
  const read = new Map<string, unknown>();
  const raw = (name: string) => {
    read.set(name, record[name]);
    return record[name];
  };
  return {
    raw,
    read,
    number(name, rule) {
      const number = checkNumber(raw(name) ?? rule.default, rule, `${where}.${name}`);
      read.set(name, number);
      return number;
    },
    text(name) {
      const given = raw(name) ?? undefined;
      if (given !== undefined && typeof given !== 'string') throw new Refusal(`${where}.${name} is not a string`);
      return given;
    },
    flag(name, otherwise) {
      const given = raw(name) ?? otherwise;
      if (typeof given !== 'boolean') throw new Refusal(`${where}.${name} is not true or false`);
      return given;
    },
    rest: () => Object.keys(record).filter((name) => !read.has(name)),
  };
}

/** Text (a flag or an environment variable) as a number under the same rules; undefined stays the default. */
export function readNumber(text: string | undefined, rule: Rule, where: string): number {
  if (text === undefined || text === '') return rule.default;
  return checkNumber(Number(text), rule, where, text);
}

export function readJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Refusal(`${where} is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function checkNumber(value: unknown, rule: Rule, where: string, shown = JSON.stringify(value)): number {
  const { min = -Infinity, max = Infinity, above = -Infinity, whole = false } = rule;
  const fits = typeof value === 'number' && Number.isFinite(value) && value >= min && value <= max && value > above;
  if (fits && (!whole || Number.isInteger(value))) return value;
  const limits = [
    min > -Infinity ? `at least ${min}` : '',
    above > -Infinity ? `above ${above}` : '',
    max < Infinity ? `at most ${max}` : '',
  ].filter((limit) => limit !== '');
  const kind = whole ? 'a whole number' : 'a number';
  throw new Refusal(`${where} is ${shown}: it must be ${[kind, ...limits].join(', ')}`);
}
