// A gateway in a process that can be measured: starts `gateway-child.ts` and queries it.
import { fileURLToPath } from 'node:url';
import { type Child, spawnNode } from './child.ts';

export type Measured = {
  port: number;
  child: Child;
  /** Sends lines as a runner does; resolves when all are committed. */
  feed(options: { lines: number; bytes: number; batch: number; everyMs?: number }): Promise<void>;
  finish(): Promise<void>;
  /** Memory after garbage collection. */
  memory(): Promise<NodeJS.MemoryUsage>;
  cpu(): Promise<{ user: number; system: number }>;
  /** Resources that keep the event loop alive, one entry each, e.g. `Timeout`. */
  resources(): Promise<string[]>;
  /** Value of a Prometheus metric, by its name without the prefix; the count of a histogram. */
  figure(name: string): Promise<number>;
  stop(): Promise<void>;
};

export async function startMeasured(env: Record<string, string> = {}): Promise<Measured> {
  const file = fileURLToPath(new URL('./gateway-child.ts', import.meta.url));
  const child = spawnNode(['--expose-gc', file], { env: { CHILD_ENV: JSON.stringify(env) } });
  const [, control, port] = await child.untilLine(/control (\d+) gateway (\d+)/, { timeoutMs: 50_000 });
  const ask = async (path: string): Promise<unknown> => {
    const answer = await fetch(`http://127.0.0.1:${control}${path}`);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  };
  return {
    port: Number(port),
    child,
    async feed({ lines, bytes, batch, everyMs = 0 }) {
      await ask(`/feed?lines=${lines}&bytes=${bytes}&batch=${batch}&everyMs=${everyMs}`);
    },
    async finish() {
      await ask('/finish');
    },
    memory: async () => (await ask('/memory')) as NodeJS.MemoryUsage,
    cpu: async () => (await ask('/cpu')) as { user: number; system: number },
    resources: async () => (await ask('/resources')) as string[],
    async figure(name) {
      const figures = (await ask('/figures')) as { name: string; values: { value: number; metricName?: string }[] }[];
      const values = figures.find((figure) => figure.name === `astraml_${name}`)?.values ?? [];
      return (values.find(({ metricName }) => metricName?.endsWith('_count')) ?? values[0])?.value ?? 0;
    },
    async stop() {
      await child.stop();
    },
  };
}
