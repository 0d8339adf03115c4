// Runs after `npm install` in a checkout, on whatever node is there: AstraML runs its TypeScript directly, which
// needs Node 22.18 or newer. On an older node it makes `node_modules/.bin/node` the one that came as a package.
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const [major, minor] = process.versions.node.split('.').map(Number);
const bin = join(dirname(fileURLToPath(import.meta.url)), '..', 'node_modules', '.bin');
const link = join(bin, process.platform === 'win32' ? 'node.exe' : 'node');

if ((major < 22 || (major === 22 && minor < 18)) && !existsSync(link)) {
  const found = findPackagedNode();
  if (found) {
    mkdirSync(bin, { recursive: true });
    symlinkSync(found, link);
  }
  if (!found) {
    console.error(
      `astraml: node ${process.versions.node} is too old (22.18 is the oldest that works) and no packaged node ` +
        `exists for ${process.platform}-${process.arch}. Install Node 24 and run npm again.`,
    );
  }
}

function findPackagedNode() {
  const require = createRequire(import.meta.url);
  for (const prefix of ['node', 'node-bin']) {
    try {
      const folder = dirname(require.resolve(`${prefix}-${process.platform}-${process.arch}/package.json`));
      const file = join(folder, 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
      if (existsSync(file)) return file;
    } catch {
      // not installed on this platform
    }
  }
  return undefined;
}
