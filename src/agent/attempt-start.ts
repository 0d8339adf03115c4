// Starts the supervisor of an assignment, in this process or in one of its own.
import { acknowledgement, type Assignment, type RegisterAnswer } from '../protocol/control.ts';
import type { RunningAttempt } from './attempt.ts';
import type { Control } from './control.ts';
import { spawnSupervisor } from './detached.ts';
import { virtualModel } from './gpus.ts';
import type { RunnerOptions } from './runner-options.ts';
import { describePlace } from './sentences.ts';
import { Supervisor } from './supervisor.ts';
import { userFor } from './user.ts';

export function startAttempt(
  options: RunnerOptions,
  control: Control,
  registration: RegisterAnswer,
  assignment: Assignment,
): RunningAttempt {
  const { attempts, executor, workDir, url, token, graceMs, whenCut = 'continue', spoolBytes } = options;
  const { host, onTrouble } = options;
  const virtualGpus = options.gpus.every((gpu) => gpu.model === virtualModel);
  const { user, refusal } = userFor(options.users, assignment, virtualGpus);
  const place = describePlace(options, assignment, virtualGpus);
  const heartbeatMs = registration.heartbeatSeconds * 1000;
  const leaseMs = registration.leaseSeconds * 1000;
  if (attempts.in === 'own process') {
    const { runnerId } = registration;
    const redisUrl = attempts.redisUrl ?? registration.redisUrl ?? '';
    return spawnSupervisor(assignment, {
      url,
      token,
      redisUrl,
      runnerId,
      workDir,
      place,
      virtualGpus,
      groupFolder: attempts.groupFolder,
      user,
      refusal,
      heartbeatMs,
      leaseMs,
      whenCut,
      graceMs,
      spoolBytes,
    });
  }
  return new Supervisor({
    assignment,
    executor,
    workDir,
    gatewayUrl: url,
    place,
    virtualGpus,
    append: (stream, batch) => attempts.bus.append(stream, batch),
    renew: (attemptId, leaseToken) => control.call(`attempts/${attemptId}/renew`, { leaseToken }, acknowledgement),
    heartbeatMs,
    leaseMs,
    whenCut,
    graceMs,
    spoolBytes,
    host,
    user,
    refusal,
    onTrouble,
  });
}
