// Writes the documents that are made from the code: `npm run docs`. `-- --check` changes nothing, names those that are not
// what the code says, and exits 1 when there is one.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generatedDocs } from './generated-docs.ts';

const root = join(import.meta.dirname, '..');
for (const [name, text] of Object.entries(generatedDocs())) {
  const file = join(root, name);
  if (!process.argv.includes('--check')) writeFileSync(file, text);
  else if (!existsSync(file) || readFileSync(file, 'utf8') !== text) {
    console.log(name);
    process.exitCode = 1;
  }
}
