// GraphQL: policies, `setPolicy`, and the violations of a job.
import { requireActor } from '../actor.ts';
import { defaultsLayer, getDefaults } from '../defaults/defaults.ts';
import type { PolicyRule, PolicyViolation } from '../errors.ts';
import { builder, type Context, load, loadExisting } from '../graphql/builder.ts';
import {
  addMutation,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  PolicyViolationError,
  ValidationError,
} from '../graphql/mutation.ts';
import { ActorInterface, badInput, NodeInterface, registerNode } from '../graphql/node.ts';
import { connectionType, readPageArgs, toPage } from '../graphql/page.ts';
import { commit } from '../live/commit.ts';
import { decodeNumber, encodeCursor } from '../live/cursor.ts';
import { getProject, loadProjects } from '../project/project.ts';
import { ProjectRef } from '../project/schema.ts';
import { loadTokens } from '../project/token.ts';
import { overlay } from '../spec/resolve.ts';
import { ResolvedValueRef } from '../spec/schema.ts';
import {
  getCurrentPolicy,
  getPolicy,
  getPolicyById,
  listPolicies,
  type Policy,
  policyLayer,
  setPolicy,
  tryPolicy,
} from './policy.ts';

export const PolicyRef = builder.objectRef<Policy>('Policy');

registerNode('pol', 'Policy', ({ database }, actor, id) => getPolicyById(database.db, actor, id));

const PolicyEnforcement = builder.enumType('PolicyEnforcement', {
  description: 'What a violated rule does.',
  values: {
    DENY: { description: 'Refuses the job.' },
    WARN: { description: 'Accepts it with a warning.' },
  } satisfies Record<PolicyRule['enforcement'], { description: string }>,
});

const PolicyRuleRef = builder.objectRef<PolicyRule>('PolicyRule').implement({
  description:
    'A rule about one path of the job spec: a default, a limit, or both. A rule with a default and that one allowed value is a lock.',
  fields: (t) => ({
    path: t.expose('path', { type: 'SpecPath', description: 'Path the rule is about.' }),
    default: t.expose('default', { type: 'JSON', nullable: true, description: 'Default of the project.' }),
    hasDefault: t.exposeBoolean('hasDefault', {
      description: 'Indicates there is a default; tells a default of null from none.',
    }),
    min: t.exposeFloat('min', { nullable: true, description: 'Smallest value allowed.' }),
    max: t.exposeFloat('max', { nullable: true, description: 'Largest value allowed.' }),
    allowed: t.field({
      type: ['JSON'],
      nullable: true,
      description: 'Values allowed; null for any.',
      resolve: (rule) => rule.allowed,
    }),
    required: t.exposeBoolean('required', { description: 'Indicates the request must set the path itself.' }),
    message: t.exposeString('message', {
      nullable: true,
      description: 'Message shown when the rule is violated; a generated one when null.',
    }),
    enforcement: t.expose('enforcement', { type: PolicyEnforcement, description: 'What a violation does.' }),
  }),
});

PolicyRef.implement({
  description: 'The policy of a project at one revision. A revision never changes once a later one exists.',
  interfaces: [NodeInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Id of the revision.' }),
    project: t.field({
      type: ProjectRef,
      description: 'The project.',
      resolve: (policy, _, context) => loadExisting(context, loadProjects, policy.projectId),
    }),
    revision: t.exposeInt('revision', {
      description: 'Revision; grows by one with every change. 0 is the empty policy of a new project.',
    }),
    rules: t.expose('rules', { type: [PolicyRuleRef], description: 'Rules in force, ordered by path.' }),
    createdAt: t.expose('createdAt', {
      type: 'DateTime',
      description: 'Timestamp of the change that made this revision.',
    }),
    createdBy: t.field({
      type: ActorInterface,
      nullable: true,
      description: 'Who made it; null for revision 0.',
      resolve: (policy, _, context) => (policy.createdBy ? load(context, loadTokens, policy.createdBy) : null),
    }),
  }),
});

const PolicyConnection = connectionType('Policy', PolicyRef, {
  plural: 'revisions',
  noun: 'revision',
  description: 'A page of policy revisions.',
  edgeDescription: 'A policy revision and its cursor.',
});

builder.objectFields(ProjectRef, (t) => ({
  policy: t.field({
    type: PolicyRef,
    nullable: true,
    description: 'Policy of the project.',
    args: { revision: t.arg.int({ description: 'Revision to read; the current one when null.' }) },
    resolve: (project, { revision }, { database }) => getPolicy(database.db, project, revision ?? null),
  }),
  policyHistory: t.field({
    type: PolicyConnection,
    description: 'Every revision of the policy, newest first.',
    args: {
      first: t.arg.int({ description: 'Page size, 1–100.' }),
      after: t.arg.string({ description: 'Cursor to start after.' }),
    },
    async resolve(project, args, { database }) {
      const request = readPageArgs(args, 100);
      const stream = `policies:${project.id}`;
      const before = request.after === undefined ? undefined : decodeNumber(stream, request.after);
      const rows = await listPolicies(database.db, project, { limit: request.limit, before });
      return toPage(rows, request, (row) => encodeCursor(stream, [row.revision]));
    },
  }),
  effectiveDefaults: t.field({
    type: [ResolvedValueRef],
    description: "Effective defaults of the project: the versioned defaults with the policy's defaults over them.",
    args: { version: t.arg.string({ description: 'Defaults version, e.g. `v2.1`; the current one when null.' }) },
    async resolve(project, { version }, { database }) {
      const defaults = await getDefaults(database.db, version ?? null);
      if (!defaults) throw badInput('version is not a published version of the defaults.', ['version']);
      return overlay([policyLayer(await getCurrentPolicy(database.db, project)), defaultsLayer(defaults)]);
    },
  }),
}));

builder.queryField('policy', (t) =>
  t.field({
    type: PolicyRef,
    nullable: true,
    description: 'Policy of a project; null when the project does not exist or the caller may not see it.',
    args: {
      projectId: t.arg.id({ required: true, description: 'Id of the project.' }),
      revision: t.arg.int({ description: 'Revision to read; the current one when null.' }),
    },
    async resolve(_, { projectId, revision }, { actor, database }: Context) {
      const project = await getProject(database.db, requireActor(actor), projectId);
      return project && getPolicy(database.db, project, revision ?? null);
    },
  }),
);

const PolicyViolationKind = builder.enumType('PolicyViolationKind', {
  description: 'What a policy rule forbids.',
  values: {
    MIN: { description: 'Below the minimum.' },
    MAX: { description: 'Above the maximum.' },
    ALLOWED: { description: 'Not among the allowed values.' },
    REQUIRED: { description: 'The request must set it.' },
  } satisfies Record<PolicyViolation['kind'], { description: string }>,
});

const PolicyViolationRef = builder.objectRef<PolicyViolation>('PolicyViolation').implement({
  description: 'One violation of a policy.',
  fields: (t) => ({
    path: t.expose('path', { type: 'SpecPath', description: 'Path in the job spec.' }),
    value: t.expose('value', { type: 'JSON', nullable: true, description: 'Effective value.' }),
    message: t.exposeString('message', {
      description: "One sentence for people, e.g. `epochs 50 is above the project's maximum 20`.",
    }),
    rule: t.expose('rule', { type: PolicyRuleRef, description: 'Rule that was violated.' }),
    kind: t.expose('kind', { type: PolicyViolationKind, description: 'What is violated.' }),
  }),
});

builder.objectField(PolicyViolationError, 'violations', (t) =>
  t.field({
    type: [PolicyViolationRef],
    description: 'All violations.',
    resolve: (refusal) => refusal.details.violations ?? [],
  }),
);

const PolicyRuleInput = builder.inputType('PolicyRuleInput', {
  description: 'A rule of a policy.',
  fields: (t) => ({
    path: t.field({
      type: 'SpecPath',
      required: true,
      description: 'Path the rule is about, e.g. `hyperparams.epochs`.',
    }),
    default: t.field({ type: 'JSON', description: 'Default of the project; leave it out for none.' }),
    min: t.float({ description: 'Smallest value allowed.' }),
    max: t.float({ description: 'Largest value allowed.' }),
    allowed: t.field({
      type: ['JSON'],
      description: 'Values allowed; one value and the same default make a lock.',
    }),
    required: t.boolean({ defaultValue: false, description: 'Whether the request must set the path itself.' }),
    enforcement: t.field({
      type: PolicyEnforcement,
      defaultValue: 'DENY',
      description: 'What a violation does.',
    }),
    message: t.string({ description: 'Message shown when the rule is violated; a generated one when null.' }),
  }),
});

/** `tried` are the rules of a dry run. */
export const PolicyPayloadRef = builder
  .objectRef<{ policy: Policy; tried: PolicyRule[] | null }>('PolicyPayload')
  .implement({
    description: 'Success of `setPolicy`.',
    fields: (t) => ({
      policy: t.expose('policy', { type: PolicyRef, description: 'The new revision; the one in force for a dry run.' }),
    }),
  });

addMutation('setPolicy', {
  description:
    'Replaces the rules of a project, as one new revision; the rules that are in force already make none, so that repeating it is safe. With `dryRun` it changes nothing and says which of the last 100 jobs would be refused.',
  inputDescription: 'The rules.',
  input: builder.inputType('SetPolicyInput', {
    description: 'Input of `setPolicy`.',
    fields: (t) => ({
      projectId: t.id({ required: true, description: 'Id of the project.' }),
      rules: t.field({
        type: [PolicyRuleInput],
        required: true,
        description: 'All rules of the new revision: what is not here is gone.',
      }),
      ifRevision: t.int({
        description:
          'Revision the caller last saw; the mutation fails with `InvalidStateError` when there is a later one.',
      }),
      dryRun: t.boolean({ defaultValue: false, description: 'Changes nothing, and says what the rules would do.' }),
    }),
  }),
  payload: PolicyPayloadRef,
  result: 'PolicyResult',
  errors: [ValidationError, NotFoundError, PermissionError, InvalidStateError],
  async resolve({ projectId, rules, ifRevision, dryRun }, context) {
    const actor = requireActor(context.actor);
    const input = { projectId, rules, ifRevision: ifRevision ?? null };
    if (dryRun) return tryPolicy(context.database.db, actor, input);
    return { policy: await commit(context, (tx) => setPolicy(tx, actor, input)), tried: null };
  },
});
