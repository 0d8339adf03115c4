// The least possible work: a `ws` server that sends each Redis message unchanged to every socket.
import { Redis } from 'ioredis';
import { WebSocketServer } from 'ws';

const redis = new Redis(process.env.REDIS_URL);
await redis.subscribe('bench');
const server = new WebSocketServer({ port: Number(process.env.PORT), host: '127.0.0.1', perMessageDeflate: false });
redis.on('message', (_, message) => {
  for (const client of server.clients) client.send(message);
});
server.once('listening', () => console.log('listening'));
