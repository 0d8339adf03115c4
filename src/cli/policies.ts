// `astraml policies`: the defaults and limits of a project's jobs. A change of one rule sends all
// rules with the revision that was read, so that the gateway refuses it when another change came
// between.
import type { Command } from 'commander';
import { closest } from '../closest.ts';
import type { Cli } from './cli.ts';
import { type AddCommand, withGlobals } from './command.ts';
import { exitCodes, Failure, usage } from './failure.ts';
import { leafFields, select } from './fields.ts';
import { headerFlag, toNumber } from './flags.ts';
import { cell } from './output.ts';
import { printWarnings, type Problem, problemFragment, refusedBy, type Warning } from './problem.ts';
import { splitSchedule } from './schedules/input.ts';
import { isObject, parseValue, readYamlFile, requireSpec, wrongContent } from './spec-file.ts';
import { mergeSpec } from './spec-flags.ts';

const ruleFields = leafFields('path default hasDefault min max allowed required enforcement message');
const policyFields = {
  ...leafFields('id revision'),
  project: '{ id }',
  rules: select(ruleFields),
  createdAt: '',
  createdBy: '{ id name }',
};
const violationFields = { ...leafFields('path value kind message'), rule: select(ruleFields) };
const refusedJobFields = leafFields('id number name state createdAt');

type FileOptions = { file: string; header?: boolean; dryRun?: boolean };
type RuleOptions = {
  default?: string;
  min?: string;
  max?: string;
  allowed?: string;
  required?: boolean;
  warn?: boolean;
  deny?: boolean;
  message?: string;
  dryRun?: boolean;
};

type Rule = {
  path: string;
  default: unknown;
  hasDefault: boolean;
  min: number | null;
  max: number | null;
  allowed: unknown[] | null;
  required: boolean;
  enforcement: 'DENY' | 'WARN';
  message: string | null;
};
type Policy = { revision: number; project: { id: string }; rules: Rule[] };
type Violation = { path: string; value: unknown; kind: string; message: string };

export function addPolicyCommands(program: Command, add: AddCommand): void {
  const about = "show and set a project's policy: what its jobs get and may ask for";
  const policies = withGlobals(program.command('policies').description(about));
  const dryRunFlag = ['--dry-run', 'change nothing; print which of the last 100 jobs would be refused'] as const;
  const answerFields = ({ dryRun }: { dryRun?: boolean }) => (dryRun ? refusedJobFields : policyFields);
  add(policies, 'list', 'rules in force', ruleFields, () => runPolicies, { isDefault: true }).option(...headerFlag);
  add(policies, 'set', 'set the rule of one path', answerFields, () => runPoliciesSet)
    .argument('<path>', 'path of the job spec, e.g. hyperparams.epochs')
    .option('--default <value>', 'default of the project: JSON where it parses, else text')
    .option('--min <number>', 'smallest value allowed')
    .option('--max <number>', 'largest value allowed')
    .option('--allowed <values>', 'values allowed, comma-separated or as a JSON list')
    .option('--required', 'every job must set the path itself')
    .option('--warn', 'a job that violates the rule is accepted with a warning')
    .option('--deny', 'a job that violates the rule is refused (as a new rule does)')
    .option(...dryRunFlag)
    .option('--message <text>', 'what is said when the rule is violated');
  add(policies, 'unset', 'remove the rule of one path', policyFields, () => runPoliciesUnset).argument(
    '<path>',
    'path of the rule',
  );
  const test = 'print what a job spec violates; exit code 6 when it does';
  add(policies, 'test', test, violationFields, () => runPoliciesTest)
    .requiredOption('-f, --file <file>', 'job spec, JSON or YAML; - is stdin')
    .option(...headerFlag);
  add(policies, 'apply', 'replace all rules by those of a file', answerFields, () => runPoliciesApply)
    .requiredOption('-f, --file <file>', 'list of rules, JSON or YAML; - is stdin')
    .option(...dryRunFlag);
}

async function runPolicies(cli: Cli, options: { header?: boolean }): Promise<number> {
  const { revision, rules, project } = await readPolicy(cli);
  if (cli.out.json) await cli.out.printJson(rules);
  else {
    const rows = rules.map((rule) => [
      rule.path,
      rule.hasDefault ? JSON.stringify(rule.default) : '',
      cell(rule.min),
      cell(rule.max),
      (rule.allowed ?? []).map(cell).join(','),
      rule.required ? 'required' : '',
      rule.enforcement.toLowerCase(),
      cell(rule.message),
    ]);
    if (rows.length > 0) {
      await cli.out.table(
        ['PATH', 'DEFAULT', 'MIN', 'MAX', 'ALLOWED', 'REQUIRED', 'VIOLATED', 'MESSAGE'],
        rows,
        options,
      );
    }
    cli.out.note(`Policy of ${project.id}, revision ${revision}${rules.length === 0 ? ': no rules' : ''}.`);
  }
  return exitCodes.done;
}

/** Replaces the rule of one path, or adds it. */
async function runPoliciesSet(cli: Cli, options: RuleOptions, [path = '']: string[]): Promise<number> {
  const change = ruleOf(path, options);
  const { project, revision, rules } = await readPolicy(cli);
  // Fields without a flag keep their values; `policies unset` removes the rule.
  const before = asInput(rules.find((other) => other.path === path));
  const rule = isObject(before) ? { ...before, ...change } : change;
  const others = rules.filter((other) => other.path !== path).map(asInput);
  const input = { projectId: project.id, rules: [...others, rule], ifRevision: revision };
  return options.dryRun ? tryRules(cli, input) : sendRules(cli, input);
}

function ruleOf(path: string, options: RuleOptions): object {
  const { default: fallback, min, max, allowed, required, warn, deny, message } = options;
  if (warn && deny) throw usage(`policies set ${path}: --warn and --deny exclude each other.`);
  const says = [fallback, min, max, allowed, required, warn, deny].some((option) => option !== undefined);
  if (!says) {
    throw usage(
      `policies set ${path}: say at least one of --default, --min, --max, --allowed, --required, --warn, --deny.`,
    );
  }
  return {
    path,
    ...(fallback === undefined ? {} : { default: parseValue(fallback) }),
    ...(min === undefined ? {} : { min: toNumber('--min', min) }),
    ...(max === undefined ? {} : { max: toNumber('--max', max) }),
    ...(allowed === undefined ? {} : { allowed: toList(allowed) }),
    ...(required === undefined ? {} : { required }),
    ...(warn || deny ? { enforcement: warn ? 'WARN' : 'DENY' } : {}),
    ...(message === undefined ? {} : { message }),
  };
}

/** Parses `a,b`, or a JSON list for values with commas. */
function toList(text: string): unknown[] {
  const whole = parseValue(text);
  return Array.isArray(whole) ? whole : text.split(',').map((item) => parseValue(item.trim()));
}

async function runPoliciesUnset(cli: Cli, _options: object, [path = '']: string[]): Promise<number> {
  const { project, revision, rules } = await readPolicy(cli);
  const others = rules.filter((rule) => rule.path !== path);
  if (others.length === rules.length) {
    const paths = rules.map((rule) => rule.path);
    const near = closest(path, paths) ?? paths.find((known) => known.endsWith(`.${path}`));
    const hint = near ? `Did you mean "${near}"?` : 'astraml policies lists the rules.';
    throw new Failure(exitCodes.notFound, `The policy of ${project.id} has no rule for "${path}".`, hint);
  }
  return sendRules(cli, { projectId: project.id, rules: others.map(asInput), ifRevision: revision });
}

/** Sets all rules from a file: a list of rules, or an object with the list under `rules`. */
async function runPoliciesApply(cli: Cli, { file, dryRun }: FileOptions): Promise<number> {
  const content = await readYamlFile(file);
  const rules = isObject(content) ? content['rules'] : content;
  if (!Array.isArray(rules)) throw wrongContent(file, content, 'a policy is a list of rules, or an object with rules');
  const input = { projectId: cli.requireProject(), rules: rules.map((rule: unknown) => asInput(rule)) };
  return dryRun ? tryRules(cli, input) : sendRules(cli, input);
}

/**
 * Turns a rule of a file into input for the API. Also takes the output of `policies list --json`,
 * where `hasDefault` tells a default of null from no default.
 */
function asInput(rule: unknown): unknown {
  if (!isObject(rule)) return rule; // the gateway refuses it
  const { hasDefault, default: fallback, ...others } = rule;
  return hasDefault === false || fallback === undefined ? others : { ...others, default: fallback };
}

/** Prints the rules that a job spec violates; exit code 6 when there are any. */
async function runPoliciesTest(cli: Cli, { file, header }: FileOptions): Promise<number> {
  const spec = await requireSpec(splitSchedule(await mergeSpec(cli, { file }, []), {}).template);
  const query = `query($spec: JobSpecInput!) {
    previewJob(spec: $spec) {
      policyRevision
      warnings { code message }
      errors { ...Problem ... on PolicyViolationError { violations ${select(violationFields)} } }
    }
  } ${problemFragment}`;
  type Preview = {
    policyRevision: number | null;
    warnings: Warning[];
    errors: (Problem & { violations?: Violation[] })[];
  };
  const { previewJob } = await cli.request<{ previewJob: Preview }>(query, { spec });
  const other = previewJob.errors.find(({ violations }) => !violations);
  if (other) throw refusedBy(other);
  const violations = previewJob.errors.flatMap((error) => error.violations ?? []);
  if (cli.out.json) await cli.out.printJson(violations);
  else if (violations.length > 0) {
    const rows = violations.map(({ path, value, kind, message }) => [path, cell(value), kind, cell(message)]);
    await cli.out.table(['PATH', 'VALUE', 'KIND', 'MESSAGE'], rows, { header });
  }
  const warned = previewJob.warnings.filter(({ code }) => code === 'POLICY_WARNING');
  printWarnings(cli, warned);
  const count = violations.length === 0 ? 'no violation' : `${violations.length} violation(s)`;
  cli.out.note(`${file}: ${count} of policy revision ${previewJob.policyRevision ?? ''}.`);
  return violations.length > 0 ? exitCodes.refused : exitCodes.done;
}

async function readPolicy(cli: Cli): Promise<Policy> {
  const projectId = cli.requireProject();
  const query = `query($projectId: ID!) { policy(projectId: $projectId) { revision project { id } rules ${select(ruleFields)} } }`;
  const { policy } = await cli.request<{ policy: Policy | null }>(query, { projectId });
  if (policy) return policy;
  throw new Failure(exitCodes.notFound, `Project ${projectId} does not exist, or you may not see it.`);
}

type NewRules = { projectId: string; rules: unknown[]; ifRevision?: number };

/** Prints which of the project's last jobs the rules would refuse, and changes nothing. */
async function tryRules(cli: Cli, input: NewRules): Promise<number> {
  const mutation = `mutation($input: SetPolicyInput!) {
    setPolicy(input: $input) {
      ... on PolicyPayload { policy { project { id } } refusedJobs ${select(refusedJobFields)} } ...Problem
    }
  } ${problemFragment}`;
  type Refused = { id: string; number: number; name: string; state: string; createdAt: string };
  type Payload = { policy: Pick<Policy, 'project'>; refusedJobs: Refused[] };
  const variables = { input: { ...input, dryRun: true } };
  const { setPolicy: result } = await cli.request<{ setPolicy: Payload | Problem }>(mutation, variables);
  if (!('policy' in result)) throw refusedBy(result);
  const { refusedJobs: jobs, policy } = result;
  if (cli.out.json) await cli.out.printJson(jobs);
  else if (jobs.length > 0) {
    const rows = jobs.map(({ number, name, state, createdAt }) => [
      `${policy.project.id}/${number}`,
      cell(name),
      state,
      createdAt,
    ]);
    await cli.out.table(['JOB', 'NAME', 'STATE', 'SUBMITTED'], rows);
  }
  cli.out.note(`Nothing was changed. These rules would refuse ${jobs.length} of the last 100 jobs.`);
  return exitCodes.done;
}

async function sendRules(cli: Cli, input: NewRules): Promise<number> {
  const mutation = `mutation($input: SetPolicyInput!) {
    setPolicy(input: $input) { __typename ... on PolicyPayload { policy ${select(policyFields)} } ...Problem }
  } ${problemFragment}`;
  type Payload = { __typename: 'PolicyPayload'; policy: Policy };
  const { setPolicy: result } = await cli.request<{ setPolicy: Payload | Problem }>(mutation, { input });
  if (!('policy' in result)) throw refusedBy(result);
  const { project, revision, rules } = result.policy;
  if (cli.out.json) await cli.out.printJson(result.policy);
  else
    await cli.out.print(`${project.id} revision ${revision}, ${rules.length} ${rules.length === 1 ? 'rule' : 'rules'}`);
  return exitCodes.done;
}
