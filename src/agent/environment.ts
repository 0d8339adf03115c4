// Makes the environment of a job's command: the contract with training scripts. Of the host's
// environment only the names below are inherited.
import { join } from 'node:path';
import type { Assignment } from '../protocol/control.ts';
import type { User } from './executor.ts';

const inherited = /^(PATH|HOME|USER|LANG|LC_.*|TZ|LD_LIBRARY_PATH|CUDA_HOME|NVIDIA_.*|HF_HOME|TMPDIR|SSL_CERT_.*)$/;

/** Inherited names whose values belong to the runner's own user: another user does not get them. */
const ownOfUser = new Set(['HOME', 'USER', 'HF_HOME', 'TMPDIR']);

export type Folders = { work: string; output: string; config: string; stopFile: string };

/**
 * Returns the whole environment of the command. Variables of the job override inherited ones, and
 * the `ASTRAML_…` variables override both.
 */
export function environmentOf(
  assignment: Assignment,
  folders: Folders,
  options: {
    host: Readonly<Record<string, string | undefined>>;
    gatewayUrl: string;
    virtualGpus: boolean;
    now: number;
    user?: User | undefined;
  },
): Record<string, string> {
  const { job, spec, env, gpus, attemptNumber, timeoutSeconds } = assignment;
  const hyperparams = (spec['hyperparams'] ?? {}) as Record<string, unknown>;
  const { user } = options;
  const host = Object.entries(options.host).filter(
    ([name, value]) => inherited.test(name) && value !== undefined && !(user && ownOfUser.has(name)),
  );
  return {
    ...(Object.fromEntries(host) as Record<string, string>),
    ...(user ? variablesOf(user) : {}),
    PYTHONUNBUFFERED: '1',
    COLUMNS: '120',
    TQDM_MININTERVAL: '5',
    ...env,
    ASTRAML: '1',
    ASTRAML_JOB_ID: job.id,
    ASTRAML_JOB_NUMBER: String(job.number),
    ASTRAML_JOB_NAME: job.name,
    ASTRAML_PROJECT_ID: job.projectId,
    ...(job.scheduleId === null ? {} : { ASTRAML_SCHEDULE_ID: job.scheduleId }),
    ASTRAML_ATTEMPT: String(attemptNumber),
    ASTRAML_MODEL: String(spec['model']),
    ASTRAML_DATASET: String(spec['dataset']),
    ASTRAML_GPUS: String(gpus.length),
    ASTRAML_HYPERPARAMS: JSON.stringify(hyperparams),
    ...hyperparamVariables(hyperparams),
    ASTRAML_CONFIG: folders.config,
    // A virtual slot is no GPU, so the command must see none.
    CUDA_VISIBLE_DEVICES: options.virtualGpus ? '' : gpus.join(','),
    ASTRAML_NODE_RANK: '0',
    ASTRAML_NUM_NODES: '1',
    ASTRAML_WORK_DIR: folders.work,
    ASTRAML_OUTPUT_DIR: folders.output,
    ASTRAML_STOP_FILE: folders.stopFile,
    ...(timeoutSeconds === null ? {} : { ASTRAML_DEADLINE: String(Math.round(options.now / 1000 + timeoutSeconds)) }),
    ASTRAML_URL: options.gatewayUrl,
  };
}

/**
 * Variables that stand for an account: the uid of a project has none, and programs such as torch
 * ask for its name.
 */
function variablesOf({ uid, home }: User): Record<string, string> {
  const name = `astraml-${uid}`;
  return { HOME: home, USER: name, LOGNAME: name, XDG_CACHE_HOME: join(home, '.cache') };
}

/**
 * Makes a variable of each hyperparameter, e.g. `ASTRAML_HP_BATCH_SIZE=32`. A value inside of an
 * object is named by its path. Strings have no quotes.
 */
function hyperparamVariables(hyperparams: Record<string, unknown>, prefix = 'ASTRAML_HP'): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const [key, value] of Object.entries(hyperparams)) {
    const name = `${prefix}_${key.toUpperCase().replace(/[^A-Z0-9]/g, '_')}`;
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      Object.assign(variables, hyperparamVariables(value as Record<string, unknown>, name));
    } else {
      variables[name] = typeof value === 'string' ? value : JSON.stringify(value);
    }
  }
  return variables;
}
