// urql: HTTP for queries and mutations, graphql-ws for subscriptions.
import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient } from 'graphql-ws';
import { headers, input, jobLogs, printLines, submitJob, url } from './operations.js';
import { resuming } from './resume.js';

const socket = createClient({
  url: url.replace(/^http/, 'ws'),
  connectionParams: headers,
  retryAttempts: Infinity,
  shouldRetry: () => true,
});
const client = new Client({
  url,
  fetchOptions: { headers },
  exchanges: [
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: (request) => ({
        subscribe: (sink) => ({ unsubscribe: resuming(socket).subscribe(request, sink) }),
      }),
    }),
  ],
});

const { data } = await client.mutation(submitJob, { input }).toPromise();
const { id: jobId } = data.submitJob.job;
await new Promise((resolve, reject) => {
  client.subscription(jobLogs, { jobId }).subscribe(({ data: batch, error, hasNext }) => {
    if (error) return reject(error);
    // urql says the last batch once more when the stream completes.
    if (hasNext) printLines(batch.jobLogs);
    else resolve();
  });
});
const end = await client.query('query ($id: ID!) { job(id: $id) { id state } }', { id: jobId }).toPromise();
console.log(end.data.job.state);
await socket.dispose();
