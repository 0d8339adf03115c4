// Prints the API that the code defines: `npm run schema` writes schema.graphql, `-- --stdout` only shows it.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { printSchemaText } from '../src/gateway/graphql/schema.ts';

const text = printSchemaText();
if (process.argv.includes('--stdout')) process.stdout.write(text);
else writeFileSync(join(import.meta.dirname, '..', 'schema.graphql'), text);
