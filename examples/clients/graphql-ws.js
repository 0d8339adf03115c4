// graphql-ws alone. Run: ASTRAML_URL=… ASTRAML_TOKEN=… node graphql-ws.js p-demo
import { createClient } from 'graphql-ws';
import { headers, input, jobLogs, printLines, submitJob, url } from './operations.js';

const client = createClient({
  url: url.replace(/^http/, 'ws'),
  connectionParams: headers,
  retryAttempts: Infinity,
  shouldRetry: () => true,
});
const submitted = await client.iterate({ query: submitJob, variables: { input } }).next();
const jobId = submitted.value.data.submitJob.job.id;

let cursor; // the payload is sent anew at each connection: the getter makes the stream go on where it was cut
const variables = {
  jobId,
  get after() {
    return cursor;
  },
};
for await (const { data } of client.iterate({ query: jobLogs, variables })) {
  printLines(data.jobLogs);
  cursor = data.jobLogs.endCursor;
}
await client.dispose();
