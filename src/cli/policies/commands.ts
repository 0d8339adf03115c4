// The commands about a project's policy, with their flags.
import type { Command } from 'commander';
import { type AddCommand, withGlobals } from '../command.ts';
import { policyFields, ruleFields, violationFields } from '../fields.ts';
import type { PolicyFileOptions, PolicyListOptions, RuleOptions } from './policies.ts';

const headerFlag = ['--header', 'print the header also where no terminal reads'] as const;
const dryRunFlag = ['--dry-run', 'change nothing; print which of the last 100 jobs would be refused'] as const;
const refusedFields = ['id', 'number', 'name', 'state', 'createdAt'];
const load = () => import('./policies.ts');
const policyNames = () => Object.keys(policyFields);

export function addPolicyCommands(program: Command, add: AddCommand): void {
  const about = "show and set a project's policy: what its jobs get and may ask for";
  const policies = withGlobals(program.command('policies').description(about));
  add<PolicyListOptions>(
    policies,
    'list',
    'rules in force',
    () => Object.keys(ruleFields),
    async () => (await load()).runPolicies,
    { isDefault: true },
  ).option(...headerFlag);
  add<RuleOptions>(
    policies,
    'set',
    'set the rule of one path',
    ({ dryRun }) => (dryRun ? refusedFields : policyNames()),
    async () => (await load()).runPoliciesSet,
  )
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
  add<object>(
    policies,
    'unset',
    'remove the rule of one path',
    policyNames,
    async () => (await load()).runPoliciesUnset,
  ).argument('<path>', 'path of the rule');
  add<PolicyFileOptions>(
    policies,
    'test',
    'print what a job spec violates; exit code 6 when it does',
    () => Object.keys(violationFields),
    async () => (await load()).runPoliciesTest,
  )
    .requiredOption('-f, --file <file>', 'job spec, JSON or YAML; - is stdin')
    .option(...headerFlag);
  add<PolicyFileOptions>(
    policies,
    'apply',
    'replace all rules by those of a file',
    ({ dryRun }) => (dryRun ? refusedFields : policyNames()),
    async () => (await load()).runPoliciesApply,
  )
    .requiredOption('-f, --file <file>', 'list of rules, JSON or YAML; - is stdin')
    .option(...dryRunFlag);
}
