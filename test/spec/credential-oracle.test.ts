// An oracle for credentials: what secretlint's recommended rules find in a corpus, ours find too. The corpus is made while
// the test runs, so that no scanner takes this file for a leak.
import assert from 'node:assert/strict';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { after, before, suite, test } from 'node:test';
import fc from 'fast-check';
import { credentialIn } from '../../src/spec/credential.ts';

/** The oracle in a process of its own, see there. */
class Oracle {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #answers: AsyncIterator<string>;

  constructor() {
    const file = join(import.meta.dirname, '../support/credential-oracle.ts');
    this.#child = spawn(process.execPath, [file], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** The names of all its rules. */
  rules(): Promise<string[]> {
    return this.#ask(null);
  }

  /** The rules that find something in the text, whatever the file that holds it. */
  find(content: string): Promise<string[]> {
    return this.#ask(content);
  }

  async end(): Promise<void> {
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }

  async #ask(content: string | null): Promise<string[]> {
    this.#child.stdin.write(`${JSON.stringify(content)}\n`);
    return JSON.parse(String((await this.#answers.next()).value)) as string[];
  }
}

/** How each kind looks, and the rule that knows it. */
const kinds: [rule: string, looks: RegExp][] = [
  ['anthropic', /sk-ant-api0\d-[A-Za-z0-9_-]{93}AA/],
  ['aws', /AWS_SECRET_ACCESS_KEY=[A-Za-z0-9/+]{39}[A-Za-z0-9]/],
  ['basicauth', /https:\/\/[a-z]{3,9}:[A-Za-z0-9_-]{12,30}@[a-z]{3,9}\.example\.com/],
  ['database-connection-string', /postgres:\/\/[a-z]{3,9}:[A-Za-z0-9!#%]{12,30}@db\.example:5432\/train/],
  ['database-connection-string', /mongodb\+srv:\/\/[a-z]{3,9}:[A-Za-z0-9!#%]{12,30}@db\.example\/train/],
  ['database-connection-string', /jdbc:mysql:\/\/[a-z]{3,9}:[A-Za-z0-9!#%]{12,30}@db\.example\/train/],
  ['databricks', /dapi[a-f0-9]{32}(?:-[0-9])?/],
  ['docker', /dckr_pat_[a-zA-Z0-9_-]{27}/],
  ['figma', /figd_[A-Za-z0-9_-]{40,60}/],
  ['github', /gh[pousr]_[A-Za-z0-9]{36}/],
  ['github', /github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}/],
  ['gitlab', /glpat-[A-Za-z0-9_-]{20}/],
  ['grafana', /glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}/],
  ['groq', /gsk_[a-zA-Z0-9]{52}/],
  ['hashicorp-vault', /hvs\.[A-Za-z0-9_-]{92}/],
  ['hashicorp-vault', /hvb\.[A-Za-z0-9_-]{140}/],
  ['huggingface', /hf_[a-zA-Z]{34}/],
  ['linear', /lin_api_[a-zA-Z0-9]{40}/],
  ['notion', /ntn_[0-9]{11}[A-Za-z0-9]{35}/],
  ['npm', /npm_[A-Za-z0-9]{36}/],
  ['npm', /https:\/\/[0-9a-f]{40}:x-oauth-basic@github\.com\/a/],
  ['openai', /sk-proj-[A-Za-z0-9_-]{74}T3BlbkFJ[A-Za-z0-9_-]{73}[A-Za-z0-9]/],
  ['openai', /sk-[a-zA-Z0-9]{20}T3BlbkFJ[a-zA-Z0-9]{20}/],
  ['sendgrid', /SG\.[A-Za-z0-9_]{22}\.[A-Za-z0-9_]{20}-[A-Za-z0-9_]{22}/],
  ['shopify', /shp(?:pa|ca|at|ss)_[a-fA-F0-9]{32}/],
  ['slack', /xox[bpar]-[0-9]{11,12}-[0-9]{11,12}-[a-zA-Z0-9]{24}/],
  ['slack', /xapp-1-A[A-Z0-9]{9}-[0-9]{12}-[a-f0-9]{40}/],
  ['slack', /https:\/\/hooks\.slack\.com\/services\/T[A-Z0-9]{8}\/B[A-Z0-9]{8}\/[a-zA-Z0-9]{24}/],
  ['vercel', /vc[piark]_[A-Za-z0-9]{24,40}/],
];

/** Those that no pattern makes. */
const pem = fc
  .constantFrom('pkcs8' as const, 'sec1' as const)
  .map((type) =>
    generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type, format: 'pem' }).toString(),
  );
const made: [rule: string, texts: fc.Arbitrary<string>][] = [
  ['privatekey', pem],
  [
    '1password',
    fc.stringMatching(/^[a-z0-9]{120}$/).map((text) => {
      const pads = ['', '.', '..'].map((pad) => JSON.stringify({ email: text, key: text + pad }));
      return `ops_${Buffer.from(pads.find(({ length }) => length % 3 === 1) ?? '').toString('base64')}`;
    }),
  ],
];

/** Texts of a spec in which a credential may stand. */
const places: ((credential: string) => string)[] = [
  (credential) => credential,
  (credential) => `curl -H "X-Auth: ${credential}" https://api.example.com`,
  (credential) => `export THING='${credential}'; python train.py`,
  (credential) => JSON.stringify({ value: credential, next: 1 }),
  (credential) => `see ${credential}, please`,
  (credential) => `thing:\n  value: ${credential}\n`,
  (credential) => `1${credential}`,
  (credential) => `_${credential}_`,
  (credential) => `https://api.example.com/x?value=${credential}&y=1`,
];

suite('What secretlint finds, ours finds', () => {
  let oracle: Oracle;
  before(() => void (oracle = new Oracle()));
  after(() => oracle.end());
  const known = new Set<string>();
  const all = [
    ...made.map(([rule, texts]) => ({ rule, texts, name: 'made' })),
    ...kinds.map(([rule, looks]) => {
      const texts = fc.stringMatching(new RegExp(`^${looks.source}$`)).filter((text) => new Set(text).size > 12);
      return { rule, texts, name: looks.source.slice(0, 40) };
    }),
  ];
  for (const { rule, texts, name } of all) {
    test(`of ${rule}: ${name}`, async () => {
      let found = 0;
      await fc.assert(
        fc.asyncProperty(texts, fc.constantFrom(...places), async (text, place) => {
          const whole = place(text);
          if (!(await oracle.find(whole)).includes(rule)) return;
          found++;
          assert.notEqual(credentialIn(whole, ''), null, whole);
        }),
        { numRuns: 30 },
      );
      assert.ok(found >= 3, `the oracle found ${found} of 30`);
      known.add(rule);
    });
  }

  test('and the corpus knows each of its rules, but those of files and comments', async () => {
    const missing = (await oracle.rules()).filter(
      (name) => !known.has(name) && name !== 'gcp' && name !== 'filter-comments',
    );
    assert.deepEqual(missing, []);
  });
});
