// The process of a guard. It kills the processes of its attempt at the time that it last read on
// stdin. It does so too when its stdin ends: the kernel closes it with the supervisor, however that
// ended. After an orderly end there is nothing left to kill.
import { createInterface } from 'node:readline';
import type { AttemptName } from './executor.ts';
import { type GuardWord, monotonicMs } from './guard.ts';
import { processExecutor } from './process.ts';

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
type GuardOptions = { name: AttemptName; groupFolder: string | null };
const { name, groupFolder } = JSON.parse(process.argv[2] ?? '') as GuardOptions;
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
