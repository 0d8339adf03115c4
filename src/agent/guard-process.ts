// The process of a guard: reads on its stdin when everything is to end at the latest. The end of its stdin, which the
// kernel closes with the supervisor however that went, is the time too; when all ended in order, nothing is found then.
import { createInterface } from 'node:readline';
import type { AttemptName } from './executor.ts';
import { type GuardWord, monotonicMs } from './guard.ts';
import { processExecutor } from './process.ts';

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
type Given = { name: AttemptName; groupFolder: string | null };
const { name, groupFolder } = JSON.parse(process.argv[2] ?? '') as Given;
const endAll = () => processExecutor(groupFolder).endStrays(name);
let timer: NodeJS.Timeout | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  const word = JSON.parse(line) as GuardWord;
  if ('life' in word) {
    name.life = word.life;
    continue;
  }
  clearTimeout(timer);
  timer = setTimeout(() => void endAll(), word.endAtMs - monotonicMs());
}
clearTimeout(timer);
await endAll();
process.exit(0);
