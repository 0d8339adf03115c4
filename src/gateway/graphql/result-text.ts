// The text of an operation's result, for all doors: made in turns, within the operation's budget. A result that is beyond it
// becomes an error with its code, never half an answer.
import type { ExecutionResult, GraphQLError } from 'graphql';
import { Refusal } from '../../errors.ts';
import type { Budget } from '../../graphql/budget.ts';
import { refusalError, withoutHttp } from '../../graphql/error.ts';
import { type Pieces, toJsonInTurns } from '../../graphql/json.ts';

/** A result whose text is at hand; Yoga asks it for its text, less what is not to be shown of its errors. */
export type WrittenResult = ExecutionResult & { stringify(shown: { errors?: readonly GraphQLError[] }): string };

/**
 * The result with its text. Long data is given to `onLongData`, where there is one: the text ends before it then, and
 * `}` is missing behind it.
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

/** The text of a result that goes where HTTP statuses mean nothing. */
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
