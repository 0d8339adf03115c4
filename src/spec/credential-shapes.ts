// Shapes of credentials that no other text has, so that they are found anywhere. Each pattern takes
// at most linear time: repetitions are bounded, or begin behind a character that they do not
// contain.
import { isRandom, isWords } from './credential-values.ts';

/**
 * `name` is the usual name of such a secret. `holds` checks a match further, where the pattern also
 * matches other texts; by default it requires many different characters, which a placeholder such
 * as `hf_xxxx…` lacks.
 */
export type Shape = { kind: string; name: string; pattern: RegExp; holds?: (match: RegExpExecArray) => boolean };

const keyKinds = ['', 'RSA ', 'EC ', 'DSA ', 'OPENSSH ', 'ENCRYPTED ', 'PGP '];

/**
 * Returns the base64 forms of the start of a private key, at the start of a text or behind one or
 * two other bytes.
 */
function encodedKeyStarts(): string[] {
  const starts = keyKinds.flatMap((kind) =>
    [0, 1, 2].map((before) => {
      const bytes = Buffer.from(`${' '.repeat(before)}-----BEGIN ${kind}PRIVATE KEY`);
      return bytes.toString('base64').slice([0, 2, 3][before], Math.floor((8 * bytes.length) / 6));
    }),
  );
  return starts.map((start) => start.replace(/[+/]/g, '[$&_-]'));
}

/** Credentials of one issuer each, recognised by their prefix. */
const prefixed: Shape[] = (
  [
    ['an AWS access key id', 'AWS_ACCESS_KEY_ID', /\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b/],
    ['a GitHub token', 'GITHUB_TOKEN', /(?<![A-Za-z])(?:gh[pousr]_\w{30,255}|github_pat_\w{22,255})/],
    ['a GitLab token', 'GITLAB_TOKEN', /(?<![A-Za-z])gl(?:pat|dt|rt|ptt|cbt)-[\w-]{20,}/],
    ['a Hugging Face token', 'HF_TOKEN', /(?<![A-Za-z])(?:hf|api_org)_[A-Za-z0-9]{30,}/],
    ['an Anthropic key', 'ANTHROPIC_API_KEY', /(?<![A-Za-z])sk-ant-[\w-]{20,}/],
    ['an OpenRouter key', 'OPENROUTER_API_KEY', /(?<![\w-])sk-or-[\w-]{20,}/],
    [
      'an OpenAI key',
      'OPENAI_API_KEY',
      /(?<![\w-])sk-(?:(?:proj|svcacct|admin|None)-[\w-]{20,}|[A-Za-z0-9]{32,})|sk-[\w-]{20,250}?T3BlbkFJ/,
    ],
    ['a Groq key', 'GROQ_API_KEY', /(?<![A-Za-z])gsk_[A-Za-z0-9]{40,}/],
    [
      'a Slack token',
      'SLACK_TOKEN',
      /\b(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,}|hooks\.slack\.com\/services\/\w+\/\w+\/\w{8,}/i,
    ],
    ['a Google API key', 'GOOGLE_API_KEY', /\bAIza[\w-]{35}/],
    ['a Stripe key', 'STRIPE_API_KEY', /\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}/],
    ['an npm token', 'NPM_TOKEN', /(?<![A-Za-z])npm_\w{36}\b|_authToken=(?![${])\S{8,}/],
    ['a PyPI token', 'PYPI_TOKEN', /\bpypi-AgE[\w-]{40,}/],
    ['a SendGrid key', 'SENDGRID_API_KEY', /(?<![A-Za-z])SG\.[\w-]{16,64}\.[\w-]{30,}/],
    ['a Databricks token', 'DATABRICKS_TOKEN', /(?<![A-Za-z])dapi[0-9a-f]{32}(?![0-9a-f])/i],
    ['a Docker token', 'DOCKER_TOKEN', /(?<![A-Za-z])dckr_[po]at_[\w-]{20,}/],
    [
      'a Discord token',
      'DISCORD_TOKEN',
      /(?<![\w-])[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40}|discord(?:app)?\.com\/api\/webhooks\/\d{16,20}\/[\w-]{40,}/,
    ],
    ['a Telegram token', 'TELEGRAM_TOKEN', /(?<!\d)\d{8,10}:[\w-]{35}(?![\w-])/],
    ['a Vault token', 'VAULT_TOKEN', /(?<![A-Za-z])hv[sbr]\.[\w-]{24,}/],
    ['a Grafana token', 'GRAFANA_TOKEN', /(?<![A-Za-z])gl(?:sa|c)_[A-Za-z0-9_+/]{32,}/],
    ['a Vercel token', 'VERCEL_TOKEN', /(?<![A-Za-z])vc[piark]_[A-Za-z0-9]{20,}/],
    ['a Linear key', 'LINEAR_API_KEY', /(?<![A-Za-z])lin_api_\w{32,}/],
    ['a Notion token', 'NOTION_TOKEN', /(?<![A-Za-z])ntn_\d{11}[A-Za-z0-9]{35}/],
    ['a Shopify token', 'SHOPIFY_TOKEN', /(?<![A-Za-z])shp(?:pa|ca|at|ss)_[A-Za-z0-9]{32,}/],
    ['a Figma token', 'FIGMA_TOKEN', /(?<![A-Za-z])figd_[\w-]{40,}/],
    ['a 1Password token', 'OP_SERVICE_ACCOUNT_TOKEN', /(?<![A-Za-z])ops_ey[A-Za-z0-9+/=]{100,}/],
    ['a token of this platform', 'ASTRAML_TOKEN', /\bastraml_[\w-]{40,}/],
  ] as [string, string, RegExp][]
).map(([kind, name, pattern]) => ({ kind, name, pattern }));

const shapes: Shape[] = [
  ...prefixed,
  {
    kind: 'an AWS secret access key',
    name: 'AWS_SECRET_ACCESS_KEY',
    pattern: /(?:aws|secret)[\w-]{0,20}key\W{1,8}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])/i,
  },
  { kind: 'a private key', name: 'PRIVATE_KEY', pattern: /-----BEGIN[A-Z\s]{0,30}PRIVATE KEY/, holds: () => true },
  { kind: 'a private key', name: 'PRIVATE_KEY', pattern: new RegExp(encodedKeyStarts().join('|')) },
  {
    kind: 'a JSON Web Token',
    name: 'ACCESS_TOKEN',
    // A match begins where a run of these characters begins, so that each run is read once and not
    // from each `eyJ` in it.
    pattern: /(?<![\w-])(?=[\w-]{13,}\.eyJ[\w-]{10,}\.[\w-]{10})[\w-]*?\beyJ[\w-]{10,}/,
  },
  {
    kind: 'a signed URL',
    name: 'SIGNED_URL',
    pattern: /[?&](?:X-Amz-Signature|X-Goog-Signature|sig)=[A-Za-z0-9%/+]{20,}/i,
  },
  {
    kind: 'a URL with a password',
    name: 'SERVICE_URL',
    pattern: /(?<![a-z])[a-z][a-z0-9+.-]{1,30}:\/\/[^\s/:@?#'"]{0,250}:([^\s@'"]{1,250})@/i,
    holds: ([url, password = '']) => hasVariety(url) && !isFilledIn.test(password) && !isPortAndPath(password),
  },
  {
    kind: 'a URL with a token',
    name: 'SERVICE_URL',
    pattern: /(?<![a-z])[a-z][a-z0-9+.-]{1,30}:\/\/([^\s/:@?#'"]{16,250}):?@/i,
    holds: ([, user = '']) => isRandom(user),
  },
];

/** Placeholders: values that a shell or a template fills in, or that stand for any password. */
const isFilledIn = /^(?:[{<*]|[%$][({]|%[A-Z_]{1,30}%$|\$[A-Z_][A-Z0-9_]*$|\$[a-z_]+\d{0,2}$|x+$)/;

/**
 * Whether the match is no password but a port and a path, e.g. in `http://host:8080/path@v2`, or
 * plain words, e.g. in `gs://bucket:data/train@v2`.
 */
function isPortAndPath(password: string): boolean {
  if (!password.includes('/')) return false;
  return /^\d{1,5}\//.test(password) || isWords(password);
}

export const shapePatterns: readonly RegExp[] = shapes.map(({ pattern }) => pattern);

/** Tokens whose text an operator chose, so that no shape fits them. */
const remembered = new Set<string>();

/** Makes this text count as a credential from now on, wherever it stands. */
export function rememberCredential(text: string): void {
  remembered.add(text);
}

const globalShapes = shapes.map((shape) => ({
  ...shape,
  pattern: new RegExp(shape.pattern.source, `${shape.pattern.flags}g`),
}));

export function shapeIn(text: string): Shape | null {
  for (const { pattern, holds = matchHasVariety, ...shape } of globalShapes) {
    for (const match of text.matchAll(pattern)) if (holds(match)) return { ...shape, pattern };
  }
  for (const token of remembered) {
    if (text.includes(token)) return { kind: 'a token of this platform', name: 'ASTRAML_TOKEN', pattern: /$^/ };
  }
  return null;
}

const matchHasVariety = ([found]: RegExpExecArray) => hasVariety(found);

function hasVariety(text: string): boolean {
  return new Set(text).size > 8;
}
