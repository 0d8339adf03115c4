// The command of the jobs: lines and points that anybody can recompute, and a witness file beside the product's own
// records.
import { crc32 } from 'node:zlib';
import { openWitness } from './witness.ts';

const [key = '', total, periodMs, file = ''] = process.argv.slice(2);
const witness = openWitness(file);

const step = (): void => {
  const n = ++witness.n;
  console.log(`line ${n} ${crc32(`${key}:${n}`).toString(16)}`);
  if (n % 2 === 0) console.log(`::astraml ${JSON.stringify({ step: n, 'train/loss': ((n * 37) % 128) / 8 - 4 })}`);
  if (n < Number(total)) setTimeout(step, Number(periodMs));
  else witness.end();
};
step();
