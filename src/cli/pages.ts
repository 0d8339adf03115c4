// Lists of the API come in pages; commands that print all of one read them to their end.
export type Page<Node> = { nodes: Node[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } };

export const pageFields = 'pageInfo { hasNextPage endCursor }';

/** All nodes, page after page. `read` asks for the page after a cursor; null begins. */
export async function readAll<Node>(read: (after: string | null) => Promise<Page<Node>>): Promise<Node[]> {
  const nodes: Node[] = [];
  let after: string | null = null;
  do {
    const page: Page<Node> = await read(after);
    nodes.push(...page.nodes);
    after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
  } while (after !== null);
  return nodes;
}
