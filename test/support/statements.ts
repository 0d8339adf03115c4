// Reads docs/statements.md: the tests that show each statement. The test of that page uses it, and
// the end of a run, which compares it with the tests that ran.
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../..');

export interface Statement {
  text: string;
  tests: NamedTest[];
  /** True when the page admits that no test shows the statement. */
  isOpen: boolean;
}

export interface NamedTest {
  /** Path from the root of the repository, e.g. `test/job/job.test.ts`. */
  file: string;
  name: string;
}

/**
 * Reads all statements. Throws for a line under a statement that is neither a test nor the
 * admission that there is none.
 */
export function readStatements(): Statement[] {
  const [, ...sections] = readFileSync(join(root, 'docs/statements.md'), 'utf8').split(/^### /m);
  return sections.map((section) => {
    const [text = '', ...lines] = section.split('\n');
    const items = lines.filter((line) => line !== '' && !line.startsWith('## '));
    const tests = items.filter((line) => line !== '- not shown yet').map(parseTest);
    return { text, tests, isOpen: tests.length < items.length };
  });
}

function parseTest(line: string): NamedTest {
  const [, file, name] = /^- `(test\/[\w./-]+)` › (.+)$/.exec(line) ?? [];
  if (!file || !name) throw new Error(`docs/statements.md: neither a test nor "not shown yet": ${line}`);
  return { file, name };
}

/**
 * Returns the tests of the page that did not run, among files that ran or that `isExpected` names.
 * `ran` holds names of tests by the absolute path of their file.
 */
export function listUnshown(
  ran: ReadonlyMap<string, ReadonlySet<string>>,
  isExpected: (file: string) => boolean,
): string[] {
  return readStatements().flatMap(({ text, tests }) =>
    tests
      .filter(({ file, name }) => {
        const names = ran.get(join(root, file));
        return names ? !names.has(name) : isExpected(file);
      })
      .map(({ file, name }) => `docs/statements.md names a test that did not run: ${file} › ${name} (${text})`),
  );
}
