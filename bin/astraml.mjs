#!/usr/bin/env node
// The binary's first step, readable by any node: check the version, then run the program.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  console.error(
    `astraml needs Node 22.18 or newer; this is ${process.versions.node}. In a checkout, run it through npm ` +
      `(npm start, npm run demo, npx astraml …), which brings its own.`,
  );
  process.exit(2);
}
await import('./drizzle-paths.mjs');
await import('../src/main.ts');
