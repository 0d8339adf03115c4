// Fields that commands select from the API, under their GraphQL names, which `--json=` takes too.
// The list of each noun stands beside its commands.

/** Fields by name, each with its selection set; an empty text for a scalar. */
export type Fields = Record<string, string>;

/** Makes scalar fields from their names, separated by spaces. */
export function leafFields(names: string): Fields {
  return Object.fromEntries(names.split(' ').map((name) => [name, '']));
}

/** Returns the selection set of the fields. */
export function select(fields: Fields): string {
  return `{ ${Object.entries(fields)
    .map(([name, inner]) => (inner ? `${name} ${inner}` : name))
    .join(' ')} }`;
}
