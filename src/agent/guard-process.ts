// The process of a guard: reads on its stdin when everything is to end at the latest. The end of its stdin, which the
// kernel closes with the supervisor however that went, is the time too; when all ended in order, nothing is found then.
import { createInterface } from 'node:readline';
import { monotonicMs } from './guard.ts';
import { processExecutor } from './process.ts';

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
const [jobId = '', attempt = ''] = process.argv.slice(2);
const endAll = () => processExecutor.endStrays(jobId, attempt);
let timer: NodeJS.Timeout | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  clearTimeout(timer);
  timer = setTimeout(() => void endAll(), Number(line) - monotonicMs());
}
clearTimeout(timer);
await endAll();
process.exit(0);
