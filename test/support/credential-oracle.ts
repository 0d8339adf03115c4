// The recommended rules of secretlint, in a process that the test must kill, because secretlint's
// profiler keeps it alive. Each line on stdin is a text as JSON, or null for the names of all
// rules. Each line on stdout holds the names of the rules that match.
import { performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { lintSource } from '@secretlint/core';
import { creator, rules } from '@secretlint/secretlint-rule-preset-recommend';

const prefix = '@secretlint/secretlint-rule-';
const preset = { id: `${prefix}preset-recommend`, rule: creator, options: {} };
/** File names to try, since some rules check only files with these names. */
const files = ['text.txt', '.npmrc', 'package.json'];
// The profiler keeps every mark and looks through all of them at the next one: each text would take longer than the last.
performance.mark = () => undefined as never;

async function find(content: string): Promise<string[]> {
  const results = await Promise.all(
    files.map((name) =>
      lintSource({
        source: { content, filePath: `/nowhere/${name}`, ext: '', contentType: 'text' },
        options: { config: { rules: [preset] }, noPhysicFilePath: true },
      }),
    ),
  );
  return results.flatMap(({ messages }) => messages.map(({ ruleId }) => ruleId));
}

for await (const line of createInterface({ input: process.stdin })) {
  const content = JSON.parse(line) as string | null;
  const names = content === null ? rules.map(({ meta }) => meta.id) : await find(content);
  console.log(JSON.stringify(names.map((name) => name.replace(prefix, ''))));
}
process.exit(0);
