// Writes the result of an operation as text, for HTTP and websockets: in turns of 10 ms, within the
// operation's budget of bytes. A result beyond the budget becomes an error, never half an answer.
import type { ExecutionResult, GraphQLError } from 'graphql';
import { Refusal } from '../../errors.ts';
import type { Budget } from '../../graphql/budget.ts';
import { refusalError, withoutHttp } from '../../graphql/error.ts';
import { type Pieces, toJsonInTurns } from '../../graphql/json.ts';

/** A result that is written already. Yoga calls `stringify` with the errors that may be shown. */
export type WrittenResult = ExecutionResult & { stringify(shown: { errors?: readonly GraphQLError[] }): string };

/**
 * Writes a result. Long data goes to `onLongData` as pieces, when it is passed: the text then ends
 * before the data, and the caller appends the pieces and a closing brace.
 */
export async function writeResult(
  result: ExecutionResult,
  budget: Budget,
  onLongData?: (data: Pieces) => void,
): Promise<WrittenResult> {
  try {
    if (result.data === undefined) return { ...result, stringify: ({ errors }) => compose(null, errors) };
    const data = await toJsonInTurns(result.data, budget.takeAnswer);
    if (!onLongData || data.pieces.length === 1) {
      const text = data.pieces.join('');
      return { ...result, stringify: ({ errors }) => compose(text, errors) };
    }
    onLongData(data);
    return { ...result, stringify: ({ errors }) => compose('', errors).slice(0, -1) };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { errors: [refusalError(error)], stringify: ({ errors }) => compose(null, errors) };
  }
}

/** Writes a result for a transport without HTTP statuses, e.g. a websocket. */
export async function textOfResult(result: ExecutionResult, budget: Budget): Promise<string> {
  const { errors, stringify } = await writeResult(result, budget);
  return stringify(errors ? { errors: errors.map(withoutHttp) } : {});
}

function compose(data: string | null, errors: readonly GraphQLError[] | undefined): string {
  const members = [
    ...(errors ? [`"errors":${JSON.stringify(errors)}`] : []),
    ...(data === null ? [] : [`"data":${data}`]),
  ];
  return `{${members.join()}}`;
}
