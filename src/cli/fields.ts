// What commands ask the gateway for, field by field under GraphQL's names, which `--json=` takes
// too. The fields of a noun stand with the noun.

/** A field and what is selected of it. */
export type Fields = Record<string, string>;

/** Scalar fields, from their names with a blank between. */
export function leafFields(names: string): Fields {
  return Object.fromEntries(names.split(' ').map((name) => [name, '']));
}

/** A selection set of these fields. */
export function select(fields: Fields): string {
  return `{ ${Object.entries(fields)
    .map(([name, inner]) => (inner ? `${name} ${inner}` : name))
    .join(' ')} }`;
}
