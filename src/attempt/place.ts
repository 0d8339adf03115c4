// Placement: decides which queued job a runner gets. Pure, so that it can be tested as a rule. Jobs
// of higher priority go first; within a priority, the project that uses the fewest GPUs, with its
// oldest job. Every fourth turn belongs to the job of the highest priority that has waited longest:
// until it is placed, the machine with the most suitable free GPUs keeps them for it. So every job
// is placed, also a large one among many small ones, unless jobs of higher priority never end.
import type { Gpu } from '../protocol/control.ts';

/** Requirements of a job. `gpuModel` is part of a model's name, e.g. `A100`; null for any. */
export type Request = { projectId: string; gpus: number; gpuModel: string | null; labels: readonly string[] };
/** GPUs and labels of a runner. `projectIds` are the projects whose jobs it takes; null for all. */
export type Offer = { gpus: readonly Gpu[]; labels: readonly string[]; projectIds: readonly string[] | null };
export type Queued = {
  id: string;
  priority: number;
  /** Milliseconds since the Unix epoch. */
  submittedAt: number;
  request: Request;
  /** Runners that do not get the job while another one matches: see `runnersToLeaveOut`. */
  leftOut: readonly string[];
};
/**
 * An online runner. `free` holds the indexes of the GPUs that it offers now. Each of its attempts
 * takes one place.
 */
export type Machine = Offer & { id: string; free: readonly number[]; places: number; placesBusy: number };
export type Cluster = {
  machines: readonly Machine[];
  /** GPUs that each project uses now, as `weightOf` counts them. */
  inUse: ReadonlyMap<string, number>;
  /** Number of jobs placed since the last turn of the job that waited longest. */
  sinceOldest: number;
};
export type Placed = { queued: Queued; gpus: number[]; sinceOldest: number };

const turnEvery = 4;

/**
 * Weight of a job in the use of its project: its GPUs; a job without GPUs counts as one with one.
 */
export function weightOf(gpus: number): number {
  return Math.max(1, gpus);
}

/** Indexes of the offered GPUs that the job would get; null when it does not fit the offer. */
export function fit(request: Request, offer: Offer): number[] | null {
  if (offer.projectIds && !offer.projectIds.includes(request.projectId)) return null;
  if (!request.labels.every((label) => offer.labels.includes(label))) return null;
  const suitable = suitableOf(request, offer.gpus);
  if (request.gpuModel !== null && suitable.length === 0) return null;
  return suitable.length >= request.gpus ? suitable.slice(0, request.gpus) : null;
}

/** Indexes, ascending, of the GPUs of the model that the job requires. */
function suitableOf({ gpuModel }: Request, gpus: readonly Gpu[]): number[] {
  const requiredModel = gpuModel?.toLowerCase() ?? '';
  return gpus
    .filter(({ model }) => model.toLowerCase().includes(requiredModel))
    .map(({ index }) => index)
    .sort((a, b) => a - b);
}

/**
 * Returns the job that the machine gets now, with its GPUs; null when none fits, or when its free
 * GPUs are kept for another job. A caller that asks for many machines passes `ranked`, the queue in
 * its order, so that it is sorted once.
 */
export function place(
  queue: readonly Queued[],
  cluster: Cluster,
  machineId: string,
  ranked: readonly Queued[] = rank(queue, cluster),
): Placed | null {
  const { machines, sinceOldest } = cluster;
  const machine = machines.find(({ id }) => id === machineId);
  if (!machine) return null;
  const oldest = turnOf(queue, cluster);
  const keptGpus =
    oldest && keptFor(oldest, machines)?.id === machineId ? suitableOf(oldest.request, machine.gpus) : [];
  for (const queued of ranked) {
    if (!mayRunOn(queued, machine, machines)) continue;
    const gpus = fitFree(queued, machine, queued === oldest ? [] : keptGpus);
    if (gpus) return { queued, gpus, sinceOldest: queued === oldest ? 0 : sinceOldest + 1 };
  }
  return null;
}

/** Returns the cluster as it is once the machine has got the job. */
export function withPlaced(cluster: Cluster, machineId: string, { queued, gpus, sinceOldest }: Placed): Cluster {
  const { projectId } = queued.request;
  const inUse = new Map(cluster.inUse).set(projectId, (cluster.inUse.get(projectId) ?? 0) + weightOf(gpus.length));
  const machines = cluster.machines.map((machine) => {
    if (machine.id !== machineId) return machine;
    const free = machine.free.filter((index) => !gpus.includes(index));
    return { ...machine, free, placesBusy: machine.placesBusy + 1 };
  });
  return { machines, inUse, sinceOldest };
}

/** Sorts the whole queue into the order in which jobs are placed. */
export function rank(queue: readonly Queued[], cluster: Cluster): Queued[] {
  const oldest = turnOf(queue, cluster);
  const used = new Map(cluster.inUse);
  const use = ({ request: { projectId, gpus } }: Queued) =>
    used.set(projectId, (used.get(projectId) ?? 0) + weightOf(gpus));
  const ranked: Queued[] = [];
  if (oldest) {
    ranked.push(oldest);
    use(oldest);
  }
  const rest = queue.filter((queued) => queued !== oldest).sort(byAge);
  const classes = [...Map.groupBy(rest, ({ priority }) => priority)].sort(([a], [b]) => b - a);
  for (const [, jobs] of classes) {
    const lines = [...Map.groupBy(jobs, ({ request }) => request.projectId).values()].map((line) => ({
      line,
      next: 0,
    }));
    for (let count = jobs.length; count > 0; count--) {
      const share = ({ line, next }: (typeof lines)[number]) => used.get(line[next]?.request.projectId ?? '') ?? 0;
      let best: (typeof lines)[number] | undefined;
      for (const candidate of lines) {
        const [a, b] = [candidate.line[candidate.next], best?.line[best.next]];
        if (!a) continue;
        const difference = best && b ? share(candidate) - share(best) || byAge(a, b) : -1;
        if (difference < 0) best = candidate;
      }
      const queued = best?.line[best.next];
      if (!best || !queued) break;
      best.next++;
      ranked.push(queued);
      use(queued);
    }
  }
  return ranked;
}

function byAge(a: Queued, b: Queued): number {
  return a.submittedAt - b.submittedAt || (a.id < b.id ? -1 : Number(a.id > b.id));
}

/**
 * Returns the longest waiting job of the highest priority that fits a machine, when it is its turn;
 * null otherwise.
 */
function turnOf(queue: readonly Queued[], { machines, sinceOldest }: Cluster): Queued | null {
  if (sinceOldest < turnEvery - 1) return null;
  const inTurn = queue.toSorted((a, b) => b.priority - a.priority || byAge(a, b));
  return inTurn.find(({ request }) => machines.some((machine) => fit(request, machine))) ?? null;
}

/**
 * Returns the machine that keeps its free GPUs for the job: the one with the most suitable free
 * GPUs. Null when the job fits somewhere now.
 */
function keptFor(queued: Queued, machines: readonly Machine[]): Machine | null {
  const possible = machines.filter((machine) => mayRunOn(queued, machine, machines));
  if (possible.some((machine) => fitFree(queued, machine, []))) return null;
  const freeOn = (machine: Machine) => suitableOf(queued.request, freeOf(machine, [])).length;
  return possible.toSorted((a, b) => freeOn(b) - freeOn(a) || (a.id < b.id ? -1 : 1))[0] ?? null;
}

/**
 * Whether all GPUs of the machine together would do, and the job is not to leave it out while
 * another machine matches.
 */
function mayRunOn({ request, leftOut }: Queued, machine: Machine, machines: readonly Machine[]): boolean {
  if (!fit(request, machine)) return false;
  if (!leftOut.includes(machine.id)) return true;
  return !machines.some((other) => !leftOut.includes(other.id) && fit(request, other));
}

function fitFree({ request }: Pick<Queued, 'request'>, machine: Machine, kept: readonly number[]): number[] | null {
  return isFull(machine) ? null : fit(request, { ...machine, gpus: freeOf(machine, kept) });
}

function isFull({ places, placesBusy }: Machine): boolean {
  return placesBusy >= places;
}

function freeOf({ gpus, free }: Machine, kept: readonly number[]): Gpu[] {
  return gpus.filter(({ index }) => free.includes(index) && !kept.includes(index));
}

export type Wait = {
  code: 'WAITING_FOR_RUNNER' | 'WAITING_FOR_GPUS' | 'WAITING_FOR_PLACES';
  message: string;
  hint: string | null;
};

/** Explains to users why a job waits, given all online runners: a code and a sentence. */
export function explainWait(request: Request, runners: readonly Machine[]): Wait {
  const what = describe(request);
  const matching = runners.filter((runner) => fit(request, runner));
  if (matching.length > 0) {
    const withGpus = matching.filter((machine) => fit(request, { ...machine, gpus: freeOf(machine, []) }));
    const many = matching.length === 1 ? '1 runner matches' : `${matching.length} runners match`;
    if (withGpus.length > 0 && withGpus.every(isFull)) {
      const where = withGpus.length === matching.length ? '' : ' where enough GPUs are free';
      const message = `${many} ${what}; no place is free${where}: ${countPlaces(withGpus)} are taken.`;
      return { code: 'WAITING_FOR_PLACES', message, hint: placesHint };
    }
    const why = withGpus.length > 0 ? 'it is not the turn of this job yet' : 'not enough GPUs are free';
    return { code: 'WAITING_FOR_GPUS', message: `${many} ${what}; ${why}.`, hint: null };
  }
  const bound = runners.filter((runner) => fit(request, { ...runner, projectIds: null }));
  if (bound.length > 0) {
    const many = bound.length === 1 ? '1 runner online matches' : `${bound.length} runners online match`;
    const takes = bound.length === 1 ? 'takes' : 'take';
    const message = `${many} ${what}, but ${takes} jobs of other projects only.`;
    return { code: 'WAITING_FOR_RUNNER', message, hint: boundHint };
  }
  const most = Math.max(0, ...runners.map((runner) => runner.gpus.length));
  const message =
    runners.length === 0
      ? 'No runner is online.'
      : `No runner online offers ${what}; the largest has ${most === 1 ? '1 GPU' : `${most} GPUs`}.`;
  return { code: 'WAITING_FOR_RUNNER', message, hint: 'Start a runner that does, or cancel the job and ask for less.' };
}

const boundHint =
  'Start a runner with a token for this project, or for all projects. An administrator of the platform creates one.';

const placesHint =
  'It starts when a job there ends. To run more jobs at once, start the runner with larger --places, or another runner.';

function countPlaces(machines: readonly Machine[]): string {
  const sum = (numbers: number[]) => numbers.reduce((total, number) => total + number, 0);
  return `${sum(machines.map(({ placesBusy }) => placesBusy))} of ${sum(machines.map(({ places }) => places))}`;
}

function describe({ gpus, gpuModel, labels }: Request): string {
  const model = gpuModel ? ` ${gpuModel}` : '';
  const tags = labels.length > 0 ? ` with ${labels.length === 1 ? 'label' : 'labels'} ${labels.join(', ')}` : '';
  if (gpus === 0) return `a job without GPUs${tags}`;
  return `${gpus}${model} ${gpus === 1 ? 'GPU' : 'GPUs'}${tags}`;
}
