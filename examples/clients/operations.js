// The two operations that every example here sends: submit a job, follow its log.
export const submitJob = `mutation ($input: SubmitJobInput!) {
  submitJob(input: $input) {
    ... on SubmitJobPayload { job { id number } }
    ... on UserError { code message hint }
  }
}`;

export const jobLogs = `subscription ($jobId: ID!, $after: String) {
  jobLogs(jobId: $jobId, after: $after) { lines { seq text } endCursor done }
}`;

const { ASTRAML_URL = 'http://127.0.0.1:4000', ASTRAML_TOKEN } = process.env;
export const url = `${ASTRAML_URL}/graphql`;
export const headers = { Authorization: `Bearer ${ASTRAML_TOKEN}` };
export const input = {
  spec: { projectId: process.argv[2] ?? 'p-demo', model: 'bert-base', dataset: 's3://bucket/dataset' },
  idempotencyKey: `example-${process.pid}-${Date.now()}`,
};

export function printLines({ lines }) {
  for (const { seq, text } of lines) console.log(`${seq} ${text}`);
}
