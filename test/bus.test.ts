// The bus port: one contract over every adapter.
import { memoryBus } from '../src/bus/memory.ts';
import { busContract } from './contract/bus.ts';

busContract('memory', async () => {
  const bus = memoryBus();
  return { bus, close: () => bus.close() };
});
