// Types by graphql-codegen: what the document asks is what the result has.
import type { ResultOf } from '@graphql-typed-document-node/core';
import { graphql } from './gql/gql.js';

export const jobQuery = graphql(`
  query Job($id: ID!) {
    job(id: $id) {
      id
      state
      createdAt
      metrics {
        name
        last {
          value
        }
      }
    }
  }
`);

type Job = NonNullable<ResultOf<typeof jobQuery>['job']>;
export const isDone = (job: Job): boolean => job.state === 'SUCCEEDED';
export const value = (job: Job): number | string | undefined => job.metrics[0]?.last.value;
// @ts-expect-error: there is no such state
export const isNothing = (job: Job): boolean => job.state === 'NOTHING';
