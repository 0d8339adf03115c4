// Apollo Client: HTTP for queries and mutations, graphql-ws for subscriptions.
import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { createClient } from 'graphql-ws';
import { headers, input, jobLogs, printLines, submitJob, url } from './operations.js';
import { resuming } from './resume.js';

const socket = createClient({
  url: url.replace(/^http/, 'ws'),
  connectionParams: headers,
  retryAttempts: Infinity,
  shouldRetry: () => true,
});
const client = new ApolloClient({
  link: ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(resuming(socket)),
    new HttpLink({ uri: url, headers }),
  ),
  cache: new InMemoryCache(),
});

const { data } = await client.mutate({ mutation: gql(submitJob), variables: { input } });
const { id: jobId } = data.submitJob.job;
// Windows and batches are messages, not objects with an id: they have no place in the cache.
const log = client.subscribe({ query: gql(jobLogs), variables: { jobId }, fetchPolicy: 'no-cache' });
await log.forEach(({ data: { jobLogs: batch } }) => printLines(batch));

const query = gql`
  query ($id: ID!) {
    job(id: $id) {
      id
      state
    }
  }
`;
const { data: end } = await client.query({ query, variables: { id: jobId } });
console.log(end.job.state);
await socket.dispose();
