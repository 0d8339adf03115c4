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
      'no-restricted-syntax': ['error', { selector: declares, message: 'Name what it holds: a noun.' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
    },
  },
  {
    files: ['src/**/*.ts'],
    rules: { 'max-lines': ['error', 300], 'max-lines-per-function': ['error', 60] },
  },
  // The fields of a GraphQL type are one list, in one function.
  { files: ['src/**/*schema.ts'], rules: { 'max-lines-per-function': 'off' } },
  {
    files: ['**/*.mjs', '**/*.js'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly' } },
  },
);
