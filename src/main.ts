// Entry of the binary. Runs the command line and ends with its exit code once all output is
// written.
import { enableCompileCache } from 'node:module';

enableCompileCache();
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0); // whoever read us has what it wanted
    throw error;
  });
}
// Imported only now, so that the compile cache serves it.
const { runProgram } = await import('./cli/program.ts');
const code = await runProgram(process.argv.slice(2));
for (const stream of [process.stdout, process.stderr]) {
  await new Promise((resolve) => stream.write('', resolve));
}
process.exit(code);
