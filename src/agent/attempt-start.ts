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
  const settings = {
    workDir,
    place: describePlace(options, assignment, virtualGpus),
    virtualGpus,
    ...userFor(options.users, assignment, virtualGpus),
    heartbeatMs: registration.heartbeatSeconds * 1000,
    leaseMs: registration.leaseSeconds * 1000,
    whenCut,
    graceMs,
    spoolBytes,
  };
  if (attempts.in === 'own process') {
    const { runnerId } = registration;
    const redisUrl = attempts.redisUrl ?? registration.redisUrl ?? '';
    return spawnSupervisor(assignment, {
      ...settings,
      url,
      token,
      redisUrl,
      runnerId,
      groupFolder: attempts.groupFolder,
    });
  }
  return new Supervisor({
    ...settings,
    assignment,
    executor,
    gatewayUrl: url,
    append: (stream, batch) => attempts.bus.append(stream, batch),
    renew: (attemptId, leaseToken) => control.call(`attempts/${attemptId}/renew`, { leaseToken }, acknowledgement),
    host,
    onTrouble,
  });
}
