// Reads docker-compose.yml and the Dockerfile as Docker does, for tests: the environment and the
// command of each service.
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';

const text = z.union([z.string(), z.number()]).transform(String);

const service = z.strictObject({
  image: z.string(),
  build: z.strictObject({ context: z.literal('.'), target: z.string() }).optional(),
  user: z.string().optional(),
  init: z.boolean().optional(),
  command: z.array(z.string()).optional(),
  environment: z.record(z.string(), text).default({}),
  deploy: z.strictObject({ replicas: z.number() }).optional(),
  volumes: z.array(z.string()).default([]),
  networks: z.array(z.string()),
  ports: z.array(z.string()).default([]),
  depends_on: z.record(z.string(), z.strictObject({ condition: z.string() })).default({}),
  healthcheck: z
    .strictObject({
      test: z.array(z.string()).optional(),
      disable: z.boolean().optional(),
      interval: z.string().optional(),
      timeout: z.string().optional(),
      retries: z.number().optional(),
      start_period: z.string().optional(),
    })
    .optional(),
  cap_drop: z.array(z.string()).optional(),
  cap_add: z.array(z.string()).optional(),
  security_opt: z.array(z.string()).optional(),
  mem_limit: z.string().optional(),
  pids_limit: z.number().optional(),
  shm_size: z.string().optional(),
  stop_signal: z.string().optional(),
  stop_grace_period: z.string().optional(),
  restart: z.string().optional(),
});

const composeFile = z.strictObject({
  name: z.string(),
  services: z.record(z.string(), service),
  networks: z.record(z.string(), z.strictObject({ internal: z.boolean().optional() })),
  volumes: z.record(z.string(), z.strictObject({})),
});

export type Service = z.output<typeof service>;
export type Compose = z.output<typeof composeFile>;

export function fileOf(path: string): string {
  return new URL(`../../${path}`, import.meta.url).pathname;
}

export function readText(path: string): string {
  return readFileSync(fileOf(path), 'utf8');
}

/**
 * Returns the compose file with its variables filled in. Throws the message of a required variable
 * that is missing.
 */
export function readCompose(env: Record<string, string>): Compose {
  const fill = (_key: unknown, value: unknown) => (typeof value === 'string' ? interpolate(value, env) : value);
  return composeFile.parse(parse(readText('docker-compose.yml'), fill));
}

/**
 * Fills in `${NAME:-default}`, `${NAME:?message}` and `$$`. Throws for any other use of a dollar,
 * which Docker might read otherwise.
 */
export function interpolate(template: string, env: Record<string, string>): string {
  return template.replace(
    /\$(\$|\{(\w+):([-?])([^}]*)\}|)/g,
    (whole: string, kind: string, name?: string, operator?: string, rest = '') => {
      if (kind === '$') return '$';
      if (kind === '') throw new Error(`a dollar that is neither doubled nor a variable, near ${whole}`);
      const value = env[name ?? ''];
      if (value) return value;
      if (operator === '?') throw new Error(`${name}: ${rest}`);
      return rest;
    },
  );
}

export type Stage = { name: string; from: string; lines: string[] };

/** Returns the stages of the Dockerfile with their instructions, continued lines joined. */
export function readDockerfile(): Stage[] {
  const stages: Stage[] = [];
  const lines = readText('Dockerfile')
    .replace(/\\\n\s*/g, '')
    .split('\n');
  for (const line of lines.filter((line) => line !== '' && !line.startsWith('#'))) {
    const from = /^FROM (\S+) AS (\S+)$/.exec(line);
    if (from) stages.push({ from: from[1] ?? '', name: from[2] ?? '', lines: [] });
    else stages.at(-1)?.lines.push(line);
  }
  return stages;
}

/**
 * Returns the last instruction with this name in a stage or in the stages below it; undefined for
 * none.
 */
export function instruction(stages: readonly Stage[], target: string, name: string): string | undefined {
  const stage = stages.find((stage) => stage.name === target);
  if (!stage) return undefined;
  const own = stage.lines.findLast((line) => line.startsWith(`${name} `));
  return own?.slice(name.length + 1) ?? instruction(stages, stage.from, name);
}

/** Returns the command of an image: `astraml` and its arguments, as arguments of node. */
export function commandOf(target: string): string[] {
  const [program, ...args] = z.array(z.string()).parse(JSON.parse(instruction(readDockerfile(), target, 'CMD') ?? ''));
  if (program !== 'astraml') throw new Error(`the image ${target} runs ${program}`);
  return [fileOf('bin/astraml.mjs'), ...args];
}
