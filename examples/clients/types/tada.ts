// Types by gql.tada: inferred from the document itself, without a generated file for each.
import { initGraphQLTada, type ResultOf } from 'gql.tada';
import type { introspection } from './graphql-env.js';

const graphql = initGraphQLTada<{ introspection: introspection; scalars: { MetricValue: number | string } }>();

export const submitMutation = graphql(`
  mutation Submit($input: SubmitJobInput!) {
    submitJob(input: $input) {
      __typename
      ... on SubmitJobPayload {
        job {
          id
          state
        }
      }
      ... on UserError {
        code
        message
      }
    }
  }
`);

type Submitted = ResultOf<typeof submitMutation>['submitJob'];
export function idOf(result: Submitted): string {
  if (result.__typename === 'SubmitJobPayload') return result.job.id;
  throw new Error(`${result.code}: ${result.message}`);
}
// @ts-expect-error: a refusal has no job
export const wrong = (result: Submitted): string => result.job.id;
