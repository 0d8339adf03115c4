// What Relay asks of a schema: ids, refetching by node(id:), connections. `npx relay-compiler` checks it.
import { graphql } from 'relay-runtime';

export const query = graphql`
  query JobListQuery($project: ID!) {
    project(id: $project) {
      ...JobList_project
    }
  }
`;

export const jobs = graphql`
  fragment JobList_project on Project
  @refetchable(queryName: "JobListPaginationQuery")
  @argumentDefinitions(count: { type: "Int", defaultValue: 20 }, cursor: { type: "String" }) {
    name
    jobs(first: $count, after: $cursor) @connection(key: "JobList_jobs") {
      edges {
        node {
          id
          state
        }
      }
    }
  }
`;

export const updates = graphql`
  subscription JobListSubscription($jobId: ID!) {
    jobUpdated(jobId: $jobId) {
      job {
        id
        state
      }
      done
    }
  }
`;
