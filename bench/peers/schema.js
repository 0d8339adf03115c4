// The part of our schema that the fan-out queries, as a peer would write it.
export const typeDefs = /* GraphQL */ `
  enum LogStream {
    STDOUT
    STDERR
    SYSTEM
  }
  type LogLine {
    seq: Int!
    time: String!
    stream: LogStream!
    text: String!
  }
  type LogBatch {
    lines: [LogLine!]!
    endCursor: String!
    caughtUp: Boolean!
    done: Boolean!
  }
  type Query {
    ok: Boolean
  }
  type Subscription {
    jobLogs(jobId: ID!): LogBatch!
  }
`;
