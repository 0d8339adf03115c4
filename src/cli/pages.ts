// Lists of the API come in pages; commands that print all of one read them to their end.
export type Page<Node> = { nodes: Node[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } };

export const pageFields = 'pageInfo { hasNextPage endCursor }';

const pageSize = 100;

/** Nodes page after page, `limit` at most. `read` asks for the `first` ones after a cursor. */
export async function readAll<Node>(
  read: (page: { first: number; after: string | null }) => Promise<Page<Node>>,
  limit = Infinity,
): Promise<Node[]> {
  const nodes: Node[] = [];
  let after: string | null = null;
  do {
    const page: Page<Node> = await read({ first: Math.min(pageSize, limit - nodes.length), after });
    nodes.push(...page.nodes);
    after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
  } while (after !== null && nodes.length < limit);
  return nodes;
}
