// Mercurius with subscriptions over Redis (mqemitter-redis), as its documentation shows them.
import Fastify from 'fastify';
import mercurius from 'mercurius';
import redis from 'mqemitter-redis';
import { typeDefs } from './schema.js';

const { hostname: host, port } = new URL(process.env.REDIS_URL);
const app = Fastify();
app.register(mercurius, {
  schema: typeDefs,
  resolvers: {
    Subscription: { jobLogs: { subscribe: (_root, _args, { pubsub }) => pubsub.subscribe('bench') } },
  },
  subscription: { emitter: redis({ host, port: Number(port) }) },
});
app.post('/publish', async ({ body }) => {
  await app.graphql.pubsub.publish({ topic: 'bench', payload: { jobLogs: body } });
  return {};
});
await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' });
console.log('listening');
