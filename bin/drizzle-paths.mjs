// Resolves the files of drizzle-orm without its package.json. That file is 180 KB long, and Node (24.21) reads it again for
// each import within the package and of it: 1.2 s of the 2.4 s in which `astraml serve` was loaded.
import { registerHooks } from 'node:module';

const name = 'drizzle-orm';
/** Paths that are the package's own, and what they were resolved to. */
const resolved = new Map();

registerHooks({
  resolve(specifier, context, next) {
    if (specifier.startsWith('.') && context.parentURL?.includes(`/node_modules/${name}/`)) {
      return { url: new URL(specifier, context.parentURL).href, format: 'module', shortCircuit: true };
    }
    if (specifier !== name && !specifier.startsWith(`${name}/`)) return next(specifier, context);
    if (context.conditions.includes('require')) return next(specifier, context);
    const found = resolved.get(specifier) ?? { ...next(specifier, context), shortCircuit: true };
    resolved.set(specifier, found);
    return found;
  },
});
