// The one pipeline of POST, GET, SSE and WebSocket: parse, validate with limits and variables, execute, mask errors.
// Everything that may refuse is a rule of parsing or validation, so that no transport can pass it by.
import {
  type DocumentNode,
  getNamedType,
  getOperationAST,
  GraphQLError,
  isInputObjectType,
  Kind,
  NoSchemaIntrospectionCustomRule,
  parse,
  type ValidationRule,
} from 'graphql';
import { createYoga, type Plugin } from 'graphql-yoga';
import type { Actor } from '../actor.ts';
import { checkVariables } from '../graphql/input.ts';
import { publicError, type ReportBug, requestError } from '../graphql/error.ts';
import { limitsRule, maxTokens } from '../graphql/limits.ts';
import { contextOf, type Gateway } from './context.ts';
import { schema } from './schema.ts';

/** Who sends the operation, and the HTTP header `Idempotency-Key`. */
export type Caller = { actor: Actor | null; idempotencyKey: string | null };

export type Pipeline = ReturnType<typeof createPipeline>;

export function createPipeline(gateway: Gateway, report: ReportBug) {
  return createYoga<Caller, object>({
    schema,
    context: ({ actor, idempotencyKey }) => contextOf(gateway, actor, idempotencyKey),
    plugins: [pipelinePlugin(gateway)],
    maskedErrors: { errorMessage: '', maskError: (error) => publicError(error, report) },
    graphqlEndpoint: '/graphql',
    parserAndValidationCache: false,
    batching: false,
    multipart: false,
    cors: false,
    graphiql: false,
    landingPage: false,
    logging: false,
  });
}

type OperationParams = { operationName?: string | null; variables?: Record<string, unknown> | null };

function pipelinePlugin({ config }: Gateway): Plugin<Caller> {
  return {
    onParse({ setParseFn }) {
      setParseFn(parseDocument);
    },
    onValidate({ addValidationRule, context }) {
      const { params = {}, idempotencyKey } = context as unknown as Caller & { params?: OperationParams };
      const variables = isRecord(params.variables) ? params.variables : {};
      const rules: ValidationRule[] = [
        limitsRule({ maxDepth: config.maxDepth, maxCost: config.maxOperationCost, variables }),
        operationRule((document) => getOperationAST(document, params.operationName), variables, idempotencyKey),
        ...(config.introspection ? [] : [NoSchemaIntrospectionCustomRule]),
      ];
      for (const rule of rules) addValidationRule(rule as never);
      return ({ valid, result, setResult }) => {
        if (!valid) setResult((result as GraphQLError[]).map(withStatus));
      };
    },
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function withStatus(error: GraphQLError): GraphQLError {
  const clean = requestError(error);
  clean.extensions['http'] ??= { status: 400 };
  return clean;
}

function parseDocument(source: Parameters<typeof parse>[0]): DocumentNode {
  try {
    return parse(source, { maxTokens });
  } catch (error) {
    const tooLarge =
      error instanceof RangeError ||
      (error instanceof Error && /maxTokens|more th[ae]n \d+ tokens/.test(error.message));
    const http = { status: 400 };
    if (tooLarge) {
      const message = `The document has more than ${maxTokens} tokens, or is nested too deep.`;
      throw new GraphQLError(message, { extensions: { code: 'OPERATION_TOO_LARGE', retryable: false, http } });
    }
    if (!(error instanceof GraphQLError)) throw error;
    const clean = requestError(error);
    clean.extensions['http'] = http;
    throw clean;
  }
}

/** Variables of the operation that will run, and the header `Idempotency-Key`, which can mean one mutation only. */
function operationRule(
  operationOf: (document: DocumentNode) => ReturnType<typeof getOperationAST>,
  variables: Record<string, unknown>,
  idempotencyKey: string | null,
): ValidationRule {
  return (context) => ({
    Document(document) {
      const operation = operationOf(document);
      if (!operation) return;
      for (const error of checkVariables(context.getSchema(), operation, variables)) context.reportError(error);
      const root = context.getSchema().getMutationType();
      if (idempotencyKey === null || operation.operation !== 'mutation' || !root) return;
      const keyed = operation.selectionSet.selections.filter((selection) => {
        const field = selection.kind === Kind.FIELD ? root.getFields()[selection.name.value] : undefined;
        const input = field?.args.find((argument) => argument.name === 'input');
        const type = input && getNamedType(input.type);
        return isInputObjectType(type) && 'idempotencyKey' in type.getFields();
      });
      if (keyed.length > 1) {
        const message =
          'The header Idempotency-Key can stand for one mutation; this operation has several that take a key.';
        context.reportError(new GraphQLError(message, { nodes: operation }));
      }
    },
  });
}
