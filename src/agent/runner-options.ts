// The options of a runner: its gateway, its machine, and how its attempts run.
import type { Bus } from '../bus/bus.ts';
import type { Assignment, Gpu } from '../protocol/control.ts';
import type { WhenCut } from './attempt.ts';
import type { Executor } from './executor.ts';
import type { ProjectUsers } from './user.ts';

export type RunnerOptions = {
  /** Address of the gateway, and a token of scope RUNNER. */
  url: string;
  token: string;
  /**
   * Where attempts run. `process`: in this process, with this bus. `own process`: each in a process
   * of its own that outlives the runner, with the Redis named here or, for null, named by the
   * gateway, and with control groups in `groupFolder` (null for none).
   */
  attempts:
    | { in: 'process'; bus: Pick<Bus, 'append' | 'subscribe'> }
    | { in: 'own process'; redisUrl: string | null; groupFolder: string | null };
  executor: Executor;
  name: string;
  version: string;
  labels: string[];
  gpus: Gpu[];
  /** Number of attempts that run at once; `defaultPlaces` by default. */
  places?: number;
  workDir: string;
  /** Milliseconds between SIGTERM and SIGKILL. */
  graceMs: number;
  /** Reaction of attempts when no gateway can be reached. */
  whenCut?: WhenCut;
  /** Bytes of records that each attempt may keep on disk until a gateway has stored them. */
  spoolBytes?: number;
  /** Users of projects; without them all jobs run as the user of this process. */
  users?: ProjectUsers | undefined;
  /** Environment of the host; jobs inherit a few of its variables. */
  host: Readonly<Record<string, string | undefined>>;
  onAttempt?: (event: 'started' | 'ended', assignment: Assignment) => void;
  /** Failures that the runner survives, e.g. a gateway that is away. */
  onTrouble?: (error: unknown) => void;
};
