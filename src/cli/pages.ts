// Lists of the API come in pages; a command that prints a whole list reads all of them.
export type Page<Node> = { nodes: Node[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } };

export const pageFields = 'pageInfo { hasNextPage endCursor }';

const pageSize = 100;

/**
 * Reads up to `limit` nodes, page by page. `read` gets the number of nodes and the cursor after
 * which they begin.
 */
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
