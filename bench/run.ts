// `npm run bench -- <name> [options]`: runs one benchmark. A benchmark with peers installs
// bench/node_modules when needed.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

type Benchmark = { what: string; options: string; peers?: boolean };

const benchmarks: Record<string, Benchmark> = {
  ingest: {
    what: 'log lines per second, runner → Redis → Postgres, beside COPY and XADD',
    options: '--lines 20000 --attempts 16 --rounds 3 --profile <folder>',
  },
  submit: {
    what: 'jobs per second over HTTP, beside the same inserts by postgres.js',
    options: '--jobs 2000 --concurrency 32 --rounds 3 --profile <folder>',
  },
  fanout: {
    what: 'server CPU per delivery to many subscribers, beside raw ws, graphql-yoga and Mercurius',
    options: '--subscribers 200 --events 20 --bytes 200 --profile <folder>',
    peers: true,
  },
  latency: {
    what: 'line read → client, beside a Redis round trip and a Postgres commit',
    options: '--samples 200',
  },
  claims: {
    what: 'transactions and CPU of a submission while many idle runners wait',
    options: '--runners 200 --jobs 50 --pause 100 --profile <folder>',
  },
  scale: {
    what: 'cost per delivery and per page of history, by subscribers and stored lines',
    options: '--subscribers 5000 --lines 1000000 --profile <folder>',
  },
};

const [name = '--help', ...rest] = process.argv.slice(2);
const chosen = benchmarks[name];
if (!chosen) {
  const isHelp = name === '--help' || name === '-h';
  if (!isHelp) console.error(`There is no benchmark ${name}.\n`);
  printHelp();
  process.exit(isHelp ? 0 : 2);
}
if (chosen.peers) installPeers();
process.exitCode = run(process.execPath, [join(import.meta.dirname, `${name}.ts`), ...rest]);

function printHelp(): void {
  console.log('Usage: npm run bench -- <name> [options]\n');
  for (const [title, { what, options }] of Object.entries(benchmarks)) {
    console.log(`  ${title.padEnd(8)} ${what}\n           ${options}`);
  }
  console.log('\nEach uses a Postgres and a Redis of its own. How to read the figures: bench/README.md');
}

/**
 * Installs the peers, which need another version of graphql, from a package and lock file of their
 * own.
 */
function installPeers(): void {
  if (existsSync(join(import.meta.dirname, 'node_modules', 'mercurius'))) return;
  console.log('Installing the peers (npm ci in bench/) …');
  const code = run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], import.meta.dirname);
  if (code !== 0) throw new Error('The peers could not be installed: npm ci in bench/ failed.');
}

function run(file: string, args: string[], cwd = process.cwd()): number {
  const done = spawnSync(file, args, { cwd, stdio: 'inherit' });
  if (done.error) throw done.error;
  return done.status ?? 1;
}
