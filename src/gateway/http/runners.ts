// /runner/v1: the control requests of runners, with a token of scope RUNNER: register, claim,
// drain, renew, lost. They are not in the GraphQL schema, since a claim waits longer than an
// operation may take.
import { z } from 'zod';
import type { Actor } from '../../actor.ts';
import { renewLease } from '../../attempt/attempt.ts';
import { Refusal } from '../../errors.ts';
import { workFigures } from '../../metrics-registry.ts';
import { idPrefix } from '../../id.ts';
import { loseBySupervisor } from '../../intake/lost.ts';
import { commit } from '../../live/commit.ts';
import { claimRequest, drainRequest, lostRequest, registerRequest, renewRequest } from '../../protocol/control.ts';
import { drainRunner, registerRunner } from '../../runner/runner.ts';
import type { Gateway } from '../context.ts';
import type { Dispatcher } from '../background/dispatcher.ts';

const heartbeatSeconds = 10;

/**
 * Answers a control request; null for a path that does not exist. `signal` ends the wait of a
 * claim: the gateway stops, or the runner has gone.
 */
export async function answerRunner(
  { gateway, dispatcher }: { gateway: Gateway; dispatcher: Dispatcher },
  actor: Actor,
  path: string,
  body: unknown,
  signal: AbortSignal,
): Promise<unknown> {
  const { leaseSeconds } = gateway.config;
  if (path === '/runner/v1/register') {
    const request = parse(registerRequest, body);
    const runner = await commit(gateway, (tx) => registerRunner(tx, actor, request));
    return {
      runnerId: runner.id,
      heartbeatSeconds: Math.min(heartbeatSeconds, leaseSeconds / 3),
      leaseSeconds,
      redisUrl: gateway.config.runnerRedisUrl,
    };
  }
  if (path === '/runner/v1/claim') {
    const request = parse(claimRequest, body);
    return { assignment: await dispatcher.claim(actor, request, signal) };
  }
  if (path === '/runner/v1/drain') {
    const request = parse(drainRequest, body);
    await commit(gateway, (tx) => drainRunner(tx, actor, request));
    return {};
  }
  const attemptId = /^\/runner\/v1\/attempts\/([^/]+)\/renew$/.exec(path)?.[1];
  if (attemptId && idPrefix(attemptId) === 'att') {
    const { leaseToken } = parse(renewRequest, body);
    const answer = await commit(gateway, (tx) => renewLease(tx, actor, { attemptId, leaseToken, leaseSeconds }));
    workFigures.leasesRenewed.inc();
    return answer;
  }
  const lostId = /^\/runner\/v1\/attempts\/([^/]+)\/lost$/.exec(path)?.[1];
  if (lostId && idPrefix(lostId) === 'att') {
    const { runnerId } = parse(lostRequest, body);
    await commit(gateway, (tx) => loseBySupervisor(tx, actor, { attemptId: lostId, runnerId }));
    return {};
  }
  return null;
}

function parse<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const places = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`);
  throw new Refusal('BAD_USER_INPUT', `The request is not what this version expects: ${places.slice(0, 5).join('; ')}`);
}
