// Table of the runner's variables: parser, default and meaning of each. Flags of `runner start`
// beat them. runner.ts and docs/configuration.md use the table.
import { z } from 'zod';
import { defaultRedactVars } from '../../agent/redact.ts';
import { defaultSpoolBytes, leastSpoolBytes } from '../../agent/spool.ts';
import { maxPlaces } from '../../protocol/control.ts';
import { list, oneOf, redisUrl, variable, whole } from '../../variables.ts';

export const whatWhenCut = ['continue', 'stop'] as const;

export const runnerVariables = {
  ASTRAML_URL: variable(
    z.url({ protocol: /^https?$/, error: 'must be the address of the gateway, e.g. https://ml.example' }),
    null,
    'Address of the gateway. Required.',
    'https://ml.example',
  ),
  ASTRAML_RUNNER_TOKEN: variable(
    z.string({ error: 'must be a token of scope RUNNER' }).min(32, 'must have at least 32 characters'),
    null,
    'Token of scope RUNNER. Required, here or better in a file that `ASTRAML_RUNNER_TOKEN_FILE` names.',
    'at-least-32-random-characters…',
  ),
  ASTRAML_RUNNER_TOKEN_FILE: variable(
    z.string().nullable(),
    null,
    'File that holds the token (`--token-file`).',
    '/etc/astraml/runner-token',
  ),
  REDIS_URL: variable(
    redisUrl,
    null,
    'Redis that carries the uplink; by default the one that the gateway names.',
    'redis://runner:…@redis.example:6379',
  ),
  ASTRAML_RUNNER_NAME: variable(
    z.string().max(100, 'must have at most 100 characters').nullable(),
    null,
    'Name of the runner (`--name`); by default the name of the host.',
    'gpu-1',
  ),
  ASTRAML_RUNNER_LABELS: variable(
    list.nullable(),
    null,
    'Labels that jobs can ask for (`--label`), comma-separated.',
    'a100,lab',
  ),
  ASTRAML_RUNNER_GPUS: variable(
    whole(0, 64).nullable(),
    null,
    'GPUs to offer at most (`--gpus`); by default all of the machine. A machine without any offers virtual ones, by default one.',
    '4',
  ),
  ASTRAML_RUNNER_PLACES: variable(
    whole(1, maxPlaces).nullable(),
    null,
    'Jobs that it runs at once (`--places`), with and without GPUs; by default two for each GPU, at least 4. `astraml runners` shows how many are taken, and a job that waits for one says so.',
    '8',
  ),
  ASTRAML_RUNNER_WORK_DIR: variable(
    z.string().min(1),
    '/var/lib/astraml',
    'Folder of its attempts (`--work-dir`).',
    '/scratch/astraml',
  ),
  ASTRAML_RUNNER_GRACE_SECONDS: variable(
    whole(0, 3_600),
    '30',
    'Seconds between SIGTERM and SIGKILL when a command has to end (`--grace`).',
    '60',
  ),
  ASTRAML_RUNNER_DRAIN_SECONDS: variable(
    whole(0),
    '3600',
    'Seconds that it waits for its jobs after a SIGTERM (`--drain-timeout`); a second SIGTERM hands them back at once.',
    '600',
  ),
  ASTRAML_RUNNER_WHEN_CUT: variable(
    oneOf(whatWhenCut),
    'continue',
    'What its jobs do while it hears no gateway (`--when-cut`): `continue`, or `stop` before another runner may start them.',
    'stop',
  ),
  ASTRAML_RUNNER_SPOOL_BYTES: variable(
    whole(leastSpoolBytes),
    String(defaultSpoolBytes),
    'Disk for what one attempt could not send yet (`--spool-bytes`); the default is 1 GiB. Past it the oldest unsent log lines become a gap in the log; points, progress and state never do.',
    '268435456',
  ),
  ASTRAML_RUNNER_ISOLATE: variable(
    oneOf(['users']).nullable(),
    null,
    '`users` (`--isolate users`): the jobs of each project run under a uid of their own. As root on Linux only.',
    'users',
  ),
  ASTRAML_RUNNER_UIDS: variable(
    z.string(),
    '70000-99999',
    'Range of the uids that `--isolate users` gives to projects. Runners that share a machine need ranges of their own.',
    '100000-199999',
  ),
  // Only checked here: each supervisor inherits the environment and reads it.
  ASTRAML_RUNNER_REDACT_VARS: variable(
    z.string().regex(/^[\w*]+( *, *[\w*]+)*$/, 'must be names of variables, comma-separated, e.g. *_PASSWORD,*_TOKEN'),
    defaultRedactVars,
    'Variables of the machine whose values never appear in a log.',
    '*_PASSWORD,*_TOKEN',
  ),
} as const;
