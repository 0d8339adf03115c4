// The command of the jobs: lines and points that anybody can recompute, and a witness file beside the product's own
// records, which says when each process ran by the machine's monotonic clock.
import { appendFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';

const [key = '', total, periodMs, witness = ''] = process.argv.slice(2);
const attempt = Number(process.env['ASTRAML_ATTEMPT']);
const say = (event: 'start' | 'beat' | 'end', n: number) => {
  const at = Number(process.hrtime.bigint() / 1_000_000n);
  appendFileSync(witness, `${JSON.stringify({ event, at, n, pid: process.pid, attempt })}\n`);
};

let n = 0;
say('start', n);
const beats = setInterval(() => say('beat', n), 50);
const step = (): void => {
  n++;
  console.log(`line ${n} ${crc32(`${key}:${n}`).toString(16)}`);
  if (n % 2 === 0) console.log(`::astraml ${JSON.stringify({ step: n, 'train/loss': ((n * 37) % 128) / 8 - 4 })}`);
  if (n < Number(total)) return void setTimeout(step, Number(periodMs));
  clearInterval(beats);
  say('end', n);
};
step();
