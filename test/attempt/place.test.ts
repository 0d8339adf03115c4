// Who goes next: rules of placement, and what they come to in a simulated cluster where jobs come, run and end at random.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import {
  type Cluster,
  explainWait,
  type Machine,
  place,
  type Queued,
  rank,
  weightOf,
} from '../../src/attempt/place.ts';

const gpusOf = (count: number, model = 'A100') =>
  Array.from({ length: count }, (_, index) => ({ index, model, memoryBytes: 0 }));

function machine(id: string, gpus: number, more: Partial<Machine> & { model?: string } = {}): Machine {
  const { model, ...rest } = more;
  const all = gpusOf(gpus, model);
  return {
    id,
    gpus: all,
    labels: [],
    projectIds: null,
    free: all.map(({ index }) => index),
    places: 1_000,
    placesBusy: 0,
    ...rest,
  };
}

let numbers = 0;
function job(gpus: number, more: Partial<Omit<Queued, 'request'> & Queued['request']> = {}): Queued {
  const { gpuModel = null, labels = [], projectId = 'p', ...rest } = more;
  const id = `job_${String(++numbers).padStart(6, '0')}`;
  const request = { projectId, gpus, gpuModel, labels };
  return { id, priority: 0, submittedAt: numbers, request, leftOut: [], ...rest };
}

const cluster = (machines: Machine[], more: Partial<Cluster> = {}): Cluster => ({
  machines,
  inUse: new Map(),
  sinceOldest: 0,
  ...more,
});

suite('a runner gets', () => {
  test('the job of the highest priority, then the oldest, that fits what it has free', () => {
    const [old, urgent, large] = [job(1), job(1, { priority: 5 }), job(4, { priority: 9 })];
    const at = cluster([machine('a', 2)]);
    assert.equal(place([old, urgent, large], at, 'a')?.queued, urgent);
    assert.equal(place([large, old], at, 'a')?.queued, old);
    assert.equal(place([large], at, 'a'), null);
  });

  test('GPUs of the model and with the labels that the job asks for', () => {
    const mixed = machine('a', 4, { labels: ['fast'] });
    const gpus = mixed.gpus.map((gpu) => ({ ...gpu, model: gpu.index < 2 ? 'NVIDIA A100' : 'NVIDIA H100' }));
    const at = cluster([{ ...mixed, gpus }]);
    assert.deepEqual(place([job(2, { gpuModel: 'h100', labels: ['fast'] })], at, 'a')?.gpus, [2, 3]);
    assert.equal(place([job(1, { labels: ['slow'] })], at, 'a'), null);
    assert.equal(place([job(3, { gpuModel: 'h100' })], at, 'a'), null);
  });

  test('the job of the project that uses the fewest GPUs', () => {
    const [mine, theirs] = [job(1, { projectId: 'a' }), job(1, { projectId: 'b' })];
    const inUse = new Map([['a', 3]]);
    assert.equal(place([mine, theirs], cluster([machine('m', 1)], { inUse }), 'm')?.queued, theirs);
    assert.deepEqual(
      rank([mine, job(1, { projectId: 'a' }), theirs], cluster([], { inUse })).map(({ request }) => request.projectId),
      ['b', 'a', 'a'],
    );
  });

  test('nothing of what is kept for the job that waited longest, unless more is urgent', () => {
    const [large, small] = [job(4), job(1)];
    const at = cluster([machine('near', 4, { free: [0, 1, 2] }), machine('far', 4, { free: [3] })], { sinceOldest: 3 });
    assert.equal(place([large, small], at, 'near'), null);
    assert.equal(place([large, small], at, 'far')?.queued, small);
    const urgent = job(1, { priority: 1 });
    assert.equal(place([large, small, urgent], at, 'near')?.queued, urgent);
    const whole = { ...at, machines: [machine('near', 4)] };
    assert.deepEqual(place([small, large], whole, 'near'), { queued: large, gpus: [0, 1, 2, 3], sinceOldest: 0 });
  });

  test('no turn is spent on a job that no machine can ever take', () => {
    const [giant, small] = [job(64), job(1)];
    assert.equal(place([giant, small], cluster([machine('a', 4)], { sinceOldest: 9 }), 'a')?.queued, small);
  });

  test('nothing while it runs as many jobs as it takes at once, and keeps the next place for the one whose turn it is', () => {
    const [cpu, gpu] = [job(0), job(2)];
    const full = machine('a', 2, { places: 4, placesBusy: 4 });
    assert.equal(place([cpu, gpu], cluster([full]), 'a'), null);
    const freed = cluster([{ ...full, placesBusy: 3 }]);
    assert.equal(place([cpu, gpu], freed, 'a')?.queued, cpu);
    // Its GPUs are free, but no place: so machine a is kept for the job that waited longest, and b is not.
    const [large, small] = [job(2), job(1)];
    const other = machine('b', 2, { free: [0] });
    const at = (placesBusy: number) => cluster([{ ...full, placesBusy }, other], { sinceOldest: 3 });
    assert.equal(place([large, small], at(4), 'a'), null);
    assert.equal(place([large, small], at(4), 'b')?.queued, small);
    assert.equal(place([small, large], at(3), 'a')?.queued, large);
  });

  test('no job that leaves it out, while another runner matches', () => {
    const burnt = job(1, { leftOut: ['a'] });
    assert.equal(place([burnt], cluster([machine('a', 1), machine('b', 1, { free: [] })]), 'a'), null);
    assert.equal(place([burnt], cluster([machine('a', 1), machine('b', 1, { labels: ['x'] })]), 'b')?.queued, burnt);
    assert.equal(place([burnt], cluster([machine('a', 1)]), 'a')?.queued, burnt, 'better there than nowhere');
    const elsewhere = job(1, { leftOut: ['a'], gpuModel: 'A100' });
    const other = machine('b', 1, { model: 'T4' });
    assert.equal(place([elsewhere], cluster([machine('a', 1), other]), 'a')?.queued, elsewhere);
  });
});

suite('a runner of some projects', () => {
  const bound = (id: string, gpus: number, ...projectIds: string[]) => machine(id, gpus, { projectIds });

  test('gets jobs of these only, however many of others stand before them', () => {
    const [other, mine] = [job(1, { projectId: 'b', priority: 9 }), job(1, { projectId: 'a' })];
    assert.equal(place([other, mine], cluster([bound('m', 1, 'a')]), 'm')?.queued, mine);
    assert.equal(place([other], cluster([bound('m', 1, 'a', 'c')]), 'm'), null);
    assert.equal(place([other], cluster([bound('m', 1, 'a', 'b')]), 'm')?.queued, other);
    assert.equal(place([other], cluster([bound('m', 1)]), 'm'), null, 'of no project');
  });

  test('keeps no GPU for a job of another project, and a job has no turn for its sake', () => {
    const [large, small] = [job(4, { projectId: 'b' }), job(1, { projectId: 'a' })];
    const half = bound('m', 4, 'a');
    const machines = [{ ...half, free: [0, 1] }, machine('n', 4, { free: [] })];
    const at = cluster(machines, { sinceOldest: 3 });
    assert.deepEqual(place([large, small], at, 'm')?.gpus, [0], 'n keeps its GPUs for it, not m');
    const alone = cluster([{ ...half, free: [0, 1] }], { sinceOldest: 3 });
    assert.equal(rank([large, small], alone)[0], small, 'nobody can run the large one: it has no turn');
  });

  test('is preferred to none for a job that failed elsewhere, if it takes its project', () => {
    const burnt = job(1, { projectId: 'b', leftOut: ['m'] });
    assert.equal(place([burnt], cluster([machine('m', 1), bound('n', 1, 'a')]), 'm')?.queued, burnt);
    assert.equal(place([burnt], cluster([machine('m', 1), bound('n', 1, 'b')]), 'm'), null);
  });

  test('is named as the reason of a wait when it would do but for the project', () => {
    const wait = explainWait(job(2, { projectId: 'b' }).request, [bound('m', 4, 'a'), machine('n', 1)]);
    assert.equal(wait.code, 'WAITING_FOR_RUNNER');
    assert.equal(wait.message, '1 runner online matches 2 GPUs, but takes jobs of other projects only.');
    assert.match(wait.hint ?? '', /token for this project/);
    const two = explainWait(job(0, { projectId: 'b' }).request, [bound('m', 4, 'a'), bound('n', 1, 'c')]);
    assert.match(two.message, /^2 runners online match a job without GPUs, but take/);
    assert.equal(explainWait(job(8, { projectId: 'b' }).request, [bound('m', 4, 'a')]).code, 'WAITING_FOR_RUNNER');
    assert.match(
      explainWait(job(8, { projectId: 'b' }).request, [bound('m', 4, 'a')]).message,
      /^No runner online offers/,
    );
    assert.equal(explainWait(job(1, { projectId: 'a' }).request, [bound('m', 4, 'a')]).code, 'WAITING_FOR_GPUS');
  });
});

test('a wait is explained by what is there and what is busy', () => {
  const request = { projectId: 'p', gpus: 4, gpuModel: 'H100', labels: [] };
  const none = explainWait(request, [machine('a', 2, { model: 'H100' })]);
  assert.equal(none.code, 'WAITING_FOR_RUNNER');
  assert.equal(none.message, 'No runner online offers 4 H100 GPUs; the largest has 2 GPUs.');
  const busy = { ...machine('b', 4, { model: 'H100' }), free: [1] };
  assert.equal(
    explainWait(request, [busy, { ...busy, id: 'c' }]).message,
    '2 runners match 4 H100 GPUs; not enough GPUs are free.',
  );
  assert.equal(explainWait(request, [busy]).code, 'WAITING_FOR_GPUS');
  assert.match(explainWait(request, [machine('b', 4, { model: 'H100' })]).message, /not the turn of this job/);

  const full = machine('d', 4, { model: 'H100', places: 8, placesBusy: 8 });
  const places = explainWait(request, [full]);
  assert.equal(places.code, 'WAITING_FOR_PLACES');
  assert.equal(places.message, '1 runner matches 4 H100 GPUs; no place is free: 8 of 8 are taken.');
  assert.match(places.hint ?? '', /--places/);
  assert.equal(
    explainWait(request, [full, { ...full, placesBusy: 9 }, busy]).message,
    '3 runners match 4 H100 GPUs; no place is free where enough GPUs are free: 17 of 16 are taken.',
  );
  assert.equal(explainWait(request, [full, { ...full, placesBusy: 7 }]).code, 'WAITING_FOR_GPUS', 'one has a place');
  assert.equal(
    explainWait(request, [{ ...busy, places: 1, placesBusy: 1 }]).code,
    'WAITING_FOR_GPUS',
    'GPUs come first',
  );
});

type Running = { queued: Queued; machineId: string; gpus: number[]; endsAt: number; startedAt: number };

/** A cluster in steps of time: jobs arrive, runners ask in any order, jobs end. Throws when a GPU is given twice. */
class Simulation {
  readonly queue: Queued[] = [];
  readonly running: Running[] = [];
  readonly waits: { queued: Queued; steps: number }[] = [];
  readonly #machines: Machine[];
  #sinceOldest = 0;
  #now = 0;

  constructor(machines: Machine[]) {
    this.#machines = machines;
  }

  get inUse(): Map<string, number> {
    const inUse = new Map<string, number>();
    for (const { queued, gpus } of this.running)
      inUse.set(queued.request.projectId, (inUse.get(queued.request.projectId) ?? 0) + weightOf(gpus.length));
    return inUse;
  }

  submit(queued: Queued): void {
    this.queue.push({ ...queued, submittedAt: this.#now });
  }

  step(order: readonly number[], lengthOf: (queued: Queued) => number): void {
    this.#now++;
    for (let at = this.running.length - 1; at >= 0; at--)
      if ((this.running[at]?.endsAt ?? 0) <= this.#now) this.running.splice(at, 1);
    for (const index of order) {
      const id = this.#machines[index % this.#machines.length]?.id ?? '';
      for (let placed = this.#claim(id); placed; placed = this.#claim(id)) {
        const { queued, gpus } = placed;
        this.queue.splice(this.queue.indexOf(queued), 1);
        this.#sinceOldest = placed.sinceOldest;
        this.waits.push({ queued, steps: this.#now - queued.submittedAt });
        this.running.push({ queued, machineId: id, gpus, startedAt: this.#now, endsAt: this.#now + lengthOf(queued) });
        const given = this.running.flatMap((run) => (run.machineId === id ? run.gpus : []));
        assert.equal(new Set(given).size, given.length, 'a GPU was given twice');
        const { places = 0 } = this.#machines.find((one) => one.id === id) ?? {};
        assert.ok(this.#placesBusy(id) <= places, 'more jobs than places');
      }
    }
  }

  #placesBusy(id: string): number {
    return this.running.filter(({ machineId }) => machineId === id).length;
  }

  #claim(id: string) {
    const machines = this.#machines.map((one) => {
      const busy = new Set(this.running.flatMap((run) => (run.machineId === one.id ? run.gpus : [])));
      const free = one.gpus.map(({ index }) => index).filter((index) => !busy.has(index));
      return { ...one, free, placesBusy: this.#placesBusy(one.id) };
    });
    const state = { machines, inUse: this.inUse, sinceOldest: this.#sinceOldest };
    const placed = place(this.queue, state, id);
    assert.deepEqual(
      place(this.queue.toReversed(), state, id),
      placed,
      'the order in which jobs are read is no matter',
    );
    return placed;
  }
}

const machinesArbitrary = fc
  .array(fc.record({ size: fc.integer({ min: 1, max: 8 }), places: fc.constantFrom(1, 2, 4, 16) }), {
    minLength: 1,
    maxLength: 4,
  })
  .map((sizes) =>
    sizes.map(({ size, places }, index) =>
      machine(`m${index}`, size, { places, labels: index === 0 ? ['first'] : [] }),
    ),
  );

suite('in any cluster', () => {
  test('no GPU or place is given twice, the same state gives the same job, and every job that fits a machine runs', () => {
    const jobs = fc.array(
      fc.record({
        at: fc.integer({ min: 0, max: 30 }),
        gpus: fc.integer({ min: 0, max: 8 }),
        projectId: fc.constantFrom('a', 'b', 'c'),
        priority: fc.constantFrom(0, 0, 0, 10),
      }),
      { maxLength: 40 },
    );
    const property = fc.property(
      machinesArbitrary,
      jobs,
      fc.array(fc.nat(3), { minLength: 4 }),
      (machines, sent, order) => {
        const simulation = new Simulation(machines);
        const largest = Math.max(...machines.map(({ gpus }) => gpus.length));
        const all = [...order, 0, 1, 2, 3];
        for (let now = 0; now < 400; now++) {
          for (const { gpus, projectId, priority } of sent.filter(({ at, gpus }) => at === now && gpus <= largest))
            simulation.submit(job(gpus, { projectId, priority }));
          simulation.step(all, () => 1 + (now % 6));
          if (now > 30 && simulation.queue.length === 0) return;
        }
        assert.deepEqual(simulation.queue, [], 'somebody starves');
      },
    );
    fc.assert(property, { numRuns: 60 });
  });

  test('a job that wants a whole machine runs among small ones that never cease', () => {
    const property = fc.property(fc.integer({ min: 2, max: 8 }), fc.integer({ min: 1, max: 5 }), (size, length) => {
      const simulation = new Simulation([machine('only', size)]);
      simulation.running.push(...stuck('mine'));
      for (let now = 0; now < 200; now++) {
        for (let n = 0; n < size; n++) simulation.submit(job(1, { projectId: `small ${n % 2}` }));
        if (now === 3) simulation.submit(job(size, { projectId: 'mine', id: 'large' }));
        simulation.step([0], () => 1 + ((now * 7) % length));
        if (simulation.waits.some(({ queued }) => queued.id === 'large')) return;
      }
      assert.fail('it starves');
    });
    fc.assert(property, { numRuns: 30 });
  });

  /** Jobs of a project on a machine that nobody else sees: they make it the one that uses the most. */
  function stuck(projectId: string): Running[] {
    const run = { machineId: 'elsewhere', gpus: [0], startedAt: 0, endsAt: Infinity };
    return Array.from({ length: 8 }, (_, n) => ({ ...run, queued: job(1, { projectId }), gpus: [n] }));
  }

  test('projects that always have jobs get equal shares, however many jobs each has', () => {
    const simulation = new Simulation([machine('x', 8), machine('y', 8)]);
    const used = new Map<string, number>();
    for (let n = 0; n < 300; n++) simulation.submit(job(1, { projectId: 'greedy' }));
    for (let now = 0; now < 150; now++) {
      if (now >= 5) simulation.submit(job(1, { projectId: 'modest' }));
      if (now >= 5) for (let n = 0; n < 4; n++) simulation.submit(job(1, { projectId: 'many' }));
      if (now >= 5) for (let n = 0; n < 4; n++) simulation.submit(job(1, { projectId: 'greedy' }));
      simulation.step([0, 1], () => 4 + (now % 3));
      if (now >= 50)
        for (const [projectId, gpus] of simulation.inUse) used.set(projectId, (used.get(projectId) ?? 0) + gpus);
    }
    const [greedy = 0, many = 0, modest = 0] = ['greedy', 'many', 'modest'].map((name) => (used.get(name) ?? 0) / 100);
    assert.ok(greedy + many + modest > 15, 'nothing is idle');
    // A quarter of the places goes by age, so a project with old jobs may have so much more.
    for (const share of [greedy, many, modest]) assert.ok(share > 2.5, `${greedy} ${many} ${modest}`);
    assert.ok(greedy < 9, `${greedy} ${many} ${modest}`);
  });
});

test('a queue of 1,000 jobs of 50 projects is looked through in milliseconds', () => {
  const queue = Array.from({ length: 1_000 }, (_, n) => job(1 + (n % 8), { projectId: `p${n % 50}`, priority: n % 3 }));
  const machines = Array.from({ length: 100 }, (_, n) => machine(`m${n}`, 8, { free: n === 99 ? [1] : [] }));
  const eachMs = Array.from({ length: 20 }, () => {
    const startedAt = performance.now();
    place(queue, cluster(machines, { sinceOldest: 3 }), 'm99');
    return performance.now() - startedAt;
  });
  const fastestMs = Math.min(...eachMs); // the others shared the machine
  assert.ok(fastestMs < 30, `${fastestMs} ms`);
});
