// graphql-yoga with graphql-ws and the Redis event target, as its documentation shows them.
import { createServer } from 'node:http';
import { createRedisEventTarget } from '@graphql-yoga/redis-event-target';
import { useServer } from 'graphql-ws/use/ws';
import { createPubSub, createSchema, createYoga } from 'graphql-yoga';
import { Redis } from 'ioredis';
import { WebSocketServer } from 'ws';
import { typeDefs } from './schema.js';

const url = process.env.REDIS_URL;
const eventTarget = createRedisEventTarget({ publishClient: new Redis(url), subscribeClient: new Redis(url) });
const pubSub = createPubSub({ eventTarget });

const yoga = createYoga({
  schema: createSchema({
    typeDefs,
    resolvers: {
      Subscription: { jobLogs: { subscribe: () => pubSub.subscribe('bench'), resolve: (payload) => payload } },
    },
  }),
  logging: false,
});

const httpServer = createServer(yoga);
const wsServer = new WebSocketServer({ server: httpServer, path: yoga.graphqlEndpoint });
useServer(
  {
    execute: (args) => args.rootValue.execute(args),
    subscribe: (args) => args.rootValue.subscribe(args),
    onSubscribe: async (ctx, _id, params) => {
      const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
        ...ctx,
        req: ctx.extra.request,
        socket: ctx.extra.socket,
        params,
      });
      const args = {
        schema,
        operationName: params.operationName,
        document: parse(params.query),
        variableValues: params.variables,
        contextValue: await contextFactory(),
        rootValue: { execute, subscribe },
      };
      const errors = validate(args.schema, args.document);
      if (errors.length) return errors;
      return args;
    },
  },
  wsServer,
);
httpServer.listen(Number(process.env.PORT), '127.0.0.1', () => console.log('listening'));
