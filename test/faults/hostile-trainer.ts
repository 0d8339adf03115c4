// The command of hostile jobs: what their kind prints, line by line. The witness file is the same as an honest job's.
import { isHostileKind, kindOf, outputsAt } from './hostile-kinds.ts';
import { openWitness } from './witness.ts';

const [key = '', kind = '', periodMs, file = ''] = process.argv.slice(2);
if (!isHostileKind(kind)) throw new Error(`There is no kind "${kind}".`);
const witness = openWitness(file);

const step = (): void => {
  witness.n++;
  // One write for all: a supervisor gets the markers at once.
  process.stdout.write(outputsAt(kind, key, witness.n).reduce((text, output) => `${text}${output.text}\n`, ''));
  if (witness.n < kindOf(kind).lines) setTimeout(step, Number(periodMs));
  else witness.end();
};
step();
