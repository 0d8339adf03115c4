// Lint: the type-aware rules that find real bugs (a promise nobody awaits), little about taste.
import js from '@eslint/js';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/** Names that read as riddles: `for (const of of due)`. A variable has the noun of what it holds. */
const riddles = '/^(of|said|told)$/';
const declares = [
  `VariableDeclarator > Identifier.id[name=${riddles}]`,
  `:function > Identifier.params[name=${riddles}]`,
  `ObjectPattern > Property > Identifier.value[name=${riddles}]`,
  `ArrayPattern > Identifier[name=${riddles}]`,
  `RestElement > Identifier[name=${riddles}]`,
].join(', ');

const riddle = { selector: declares, message: 'Name what it holds: a noun.' };

/** The product runs on Node 22.18 as well, which has none of these. */
const onNode22 = 'Node 22 does not have it.';
const tooNew = ['DisposableStack', 'AsyncDisposableStack', 'SuppressedError', 'Float16Array'].map((name) => ({
  name,
  message: onNode22,
}));

export default defineConfig(
  { ignores: ['node_modules/', 'drizzle/', '.astraml/', 'bench/node_modules/', 'examples/clients/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommended],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            { from: 'package', name: ['test', 'it', 'suite', 'describe'], package: 'node:test' },
          ],
        },
      ],
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      'no-restricted-syntax': ['error', riddle],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
    },
  },
  {
    files: ['src/**/*.ts'],
    rules: {
      'max-lines': ['error', 300],
      'max-lines-per-function': ['error', 60],
      'no-restricted-globals': ['error', ...tooNew],
      'no-restricted-syntax': ['error', riddle, { selector: 'VariableDeclaration[kind=/using$/]', message: onNode22 }],
    },
  },
  // The fields of a GraphQL type are one list, in one function.
  { files: ['src/**/*schema.ts'], rules: { 'max-lines-per-function': 'off' } },
  {
    files: ['**/*.mjs', '**/*.js'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly' } },
  },
);
