// Who goes next: pure, so that it can be tested as a rule. Jobs come in the order of the queue (priority, then age); a
// runner gets the first one that fits what it has free.
import type { Gpu } from '../protocol/control.ts';

export type Request = { gpus: number; gpuModel: string | null; labels: readonly string[] };
export type Offer = { gpus: readonly Gpu[]; labels: readonly string[] };

/** Indexes of the GPUs that the job would get from what is offered; null when it does not fit. */
export function fit(request: Request, offer: Offer): number[] | null {
  if (!request.labels.every((label) => offer.labels.includes(label))) return null;
  const wanted = request.gpuModel?.toLowerCase() ?? '';
  const suitable = offer.gpus.filter((gpu) => gpu.model.toLowerCase().includes(wanted)).map((gpu) => gpu.index);
  if (request.gpuModel !== null && suitable.length === 0) return null;
  return suitable.length >= request.gpus ? suitable.sort((a, b) => a - b).slice(0, request.gpus) : null;
}

/** The first queued job that fits the offer, with its GPUs; null when none does. */
export function place<Queued extends { request: Request }>(
  queue: readonly Queued[],
  offer: Offer,
): { queued: Queued; gpus: number[] } | null {
  for (const queued of queue) {
    const gpus = fit(queued.request, offer);
    if (gpus) return { queued, gpus };
  }
  return null;
}

/** Why a job waits, from all runners that are there: as a code and a sentence. */
export function explainWait(
  request: Request,
  runners: readonly Offer[],
): { code: 'WAITING_FOR_RUNNER' | 'WAITING_FOR_GPUS'; message: string; hint: string | null } {
  const what = describe(request);
  const matching = runners.filter((runner) => fit(request, runner)).length;
  if (matching > 0) {
    const message =
      matching === 1
        ? `1 runner matches ${what}; waiting for it.`
        : `${matching} runners match ${what}; waiting for one.`;
    return { code: 'WAITING_FOR_GPUS', message, hint: null };
  }
  const most = Math.max(0, ...runners.map((runner) => runner.gpus.length));
  const message =
    runners.length === 0
      ? 'No runner is online.'
      : `No runner online offers ${what}; the largest has ${most === 1 ? '1 GPU' : `${most} GPUs`}.`;
  return { code: 'WAITING_FOR_RUNNER', message, hint: 'Start a runner that does, or cancel the job and ask for less.' };
}

function describe({ gpus, gpuModel, labels }: Request): string {
  const model = gpuModel ? ` ${gpuModel}` : '';
  const tags = labels.length > 0 ? ` with ${labels.length === 1 ? 'label' : 'labels'} ${labels.join(', ')}` : '';
  if (gpus === 0) return `a job without GPUs${tags}`;
  return `${gpus}${model} ${gpus === 1 ? 'GPU' : 'GPUs'}${tags}`;
}
