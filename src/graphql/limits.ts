// Limits of an operation: tokens (in the parser), depth, aliases, root fields, directives and cost
// (see cost.ts). They are checked before anything runs or a stream opens, on every transport.
import {
  type ASTVisitor,
  type DefinitionNode,
  type DocumentNode,
  GraphQLError,
  Kind,
  TokenKind,
  type ValidationContext,
  visit,
} from 'graphql';
import { measure } from './cost.ts';
import { countOverlaps } from './overlap.ts';

export type Limits = {
  maxDepth: number;
  maxCost: number;
  /** Values of the operation's variables, which often hold the size of a page. */
  variables: Record<string, unknown>;
  /**
   * Called, when the operation is not too large, with its cost plus the cost of its introspection.
   */
  onCost?: (cost: number) => void;
};

/** Upper bound of a document, in characters; longer values belong into variables. */
export const maxDocument = 131_072;
/** Upper bound of the tokens of a document; the parser stops there. */
export const maxTokens = 4_000;
/**
 * Upper bound of a name or a number, in characters: graphql-js compares an unknown name with all
 * names of the schema.
 */
const maxWord = 200;
const maxOperations = 50;
const maxFragments = 100;
/**
 * Upper bound of steps to merge overlapping fields; a hundred times the need of the standard
 * introspection query.
 */
const maxOverlap = 50_000;
const maxAliases = 100;
const maxRootFields = 50;
const maxDirectives = 50;
const maxIntrospectionDepth = 16;
/**
 * About three times the cost of the standard introspection query: without it, aliases could ask for
 * the schema a hundred times.
 */
const maxIntrospectionCost = 200_000;
/** Introspection cost that is charged as one object. */
const introspectionPerPoint = 100;

const smallerHint = 'Ask for smaller pages (`first`), fewer fields and aliases, or in several operations.';

/**
 * Validation rule that refuses operations beyond these limits. It runs beside the standard rules,
 * so it also gets invalid documents.
 */
export function limitsRule(limits: Limits): (context: ValidationContext) => ASTVisitor {
  return (context) => {
    const tooLarge = (message: string, node: DefinitionNode | undefined) =>
      context.reportError(
        new GraphQLError(message, {
          nodes: node,
          extensions: { code: 'OPERATION_TOO_LARGE', hint: smallerHint, http: { status: 400 } },
        }),
      );
    return {
      Document(document) {
        const counts = countIn(document);
        const { aliases, directives } = counts;
        const [first] = document.definitions;
        const checkText = (what: string, value: number, max: number) => {
          if (value > max) tooLarge(`The document has ${what} ${value}; ${max} is the most.`, first);
          return value <= max;
        };
        // Each check bounds the work of the next.
        const isReadable =
          checkText('a name or number of length', counts.longestWord, maxWord) &&
          checkText('operations', counts.operations, maxOperations) &&
          checkText('fragments', counts.fragments, maxFragments);
        if (!isReadable) return false;
        let isWithin = true;
        for (const operation of document.definitions) {
          if (operation.kind !== Kind.OPERATION_DEFINITION) continue;
          const measured = measure(operation, context, limits.variables);
          const check = (what: string, value: number, max: number) => {
            if (value <= max) return;
            isWithin = false;
            tooLarge(`The operation has ${what} ${value}; ${max} is the most.`, operation);
          };
          check('depth', measured.depth, limits.maxDepth);
          check('introspection depth', measured.introspectionDepth, maxIntrospectionDepth);
          check('introspection cost', measured.introspectionCost, maxIntrospectionCost);
          check('root fields', measured.rootFields, maxRootFields);
          check('aliases', aliases, maxAliases);
          check('directives', directives, maxDirectives);
          check('cost', measured.cost, limits.maxCost);
          const introspection = Math.ceil(measured.introspectionCost / introspectionPerPoint);
          if (measured.cost <= limits.maxCost) limits.onCost?.(measured.cost + introspection);
        }
        if (isWithin && overlapIn(document) > maxOverlap) {
          tooLarge(`The document repeats fields too often: merging them takes more than ${maxOverlap} steps.`, first);
        }
        return false; // the walk above has visited the inner nodes
      },
    };
  };
}

type Counts = {
  aliases: number;
  directives: number;
  operations: number;
  fragments: number;
  /** Characters of the longest name or number. */
  longestWord: number;
};
const countsByDocument = new WeakMap<DocumentNode, Counts>();

/**
 * Counts of a whole document. They do not depend on variables, so a cached document is counted
 * once.
 */
function countIn(document: DocumentNode): Counts {
  const cached = countsByDocument.get(document);
  if (cached) return cached;
  const counts: Counts = {
    aliases: 0,
    directives: 0,
    operations: 0,
    fragments: 0,
    longestWord: longestWordIn(document),
  };
  for (const { kind } of document.definitions) {
    if (kind === Kind.OPERATION_DEFINITION) counts.operations++;
    if (kind === Kind.FRAGMENT_DEFINITION) counts.fragments++;
  }
  visit(document, {
    Field(node) {
      if (node.alias) counts.aliases++;
    },
    Directive() {
      counts.directives++;
    },
  });
  countsByDocument.set(document, counts);
  return counts;
}

function longestWordIn({ loc }: DocumentNode): number {
  let longest = 0;
  for (let token = loc?.startToken; token; token = token.next ?? undefined) {
    const isWord = token.kind === TokenKind.NAME || token.kind === TokenKind.INT || token.kind === TokenKind.FLOAT;
    if (isWord) longest = Math.max(longest, token.end - token.start);
  }
  return longest;
}

const overlaps = new WeakMap<DocumentNode, number>();

function overlapIn(document: DocumentNode): number {
  const overlap = overlaps.get(document) ?? countOverlaps(document, maxOverlap);
  overlaps.set(document, overlap);
  return overlap;
}
