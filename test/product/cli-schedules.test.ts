// `astraml schedules`, and `submit` with a schedule: processes of their own against a real gateway.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { type CommandLine, commandLine } from '../support/cli.ts';
import { documentedYaml } from '../support/documents.ts';
import { adminToken, createProject, dataOf, type Door, openDoor, post } from '../support/door.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { until } from '../support/until.ts';

const project = 'p-times';
let door: Door;
let line: CommandLine;
before(async () => {
  door = await openDoor();
  line = commandLine(() => ({ ASTRAML_URL: door.url, ASTRAML_TOKEN: adminToken, ASTRAML_PROJECT: project }));
  await createProject(door.port, project);
});
after(async () => {
  line.remove();
  await door.close();
  await expectNoLeaks();
});

const schedules = (args: string[]) => line.run(['schedules', ...args]);
const job = 'model: bert-base\ndataset: s3://bucket/dataset\nhyperparams: { epochs: 2 }\n';

suite('schedules', () => {
  test('of a new project are none', async () => {
    const { code, stdout, stderr } = await schedules([]);
    assert.deepEqual([code, stdout, stderr], [0, '', 'p-times has no schedules.\n']);
  });

  test('are created from a spec and flags, listed, shown, changed, paused, resumed, triggered and deleted', async () => {
    const file = line.write('job.yaml', job);
    const flags = ['--cron', '0 2 * * *', '--tz', 'Europe/Berlin', '--name', 'nightly', '--on-overlap', 'replace'];
    const created = await schedules(['create', '-f', file, ...flags, '--starting-deadline', '30m', '--json']);
    assert.equal(created.code, 0, created.stderr);
    const schedule = JSON.parse(created.stdout) as Record<string, unknown> & { nextRuns: string[]; id: string };
    assert.deepEqual(
      ['name', 'cron', 'timezone', 'onOverlap', 'startingDeadlineSeconds', 'description'].map((key) => schedule[key]),
      ['nightly', '0 2 * * *', 'Europe/Berlin', 'REPLACE', 1800, 'At 02:00'],
    );
    const [next = ''] = schedule.nextRuns;
    assert.equal((await schedules(['list'])).stdout, `nightly\t0 2 * * *\t${next}\t\n`);

    const twice = await schedules(['create', '-f', file, ...flags]);
    assert.equal(twice.code, 6);
    assert.match(twice.stderr, /^server .*\nerror: The project has a schedule "nightly" already/);

    const triggered = await schedules(['trigger', 'nightly']);
    assert.match(triggered.stdout, /^job_[0-9a-z]+ p-times\/\d+ QUEUED\n$/);
    assert.match((await schedules(['list'])).stdout, /\tQUEUED\n$/);
    const shown = await schedules(['show', schedule.id]);
    assert.match(shown.stdout, /^cron\t0 2 \* \* \* \(At 02:00, Europe\/Berlin\)$/m);

    assert.match((await schedules(['pause', 'nightly'])).stdout, /^sch_\S+ p-times nightly paused\n$/);
    assert.match((await schedules(['resume', schedule.id])).stdout, /^sch_\S+ p-times nightly next /);
    const update = await schedules([
      'update',
      'nightly',
      '--cron',
      '@hourly',
      '--name',
      'each-hour',
      '--json=name,cron',
    ]);
    assert.equal(update.stdout, '{"name":"each-hour","cron":"@hourly"}\n');
    const lost = await schedules(['delete', 'each-hours']);
    assert.deepEqual([lost.code, /Did you mean "each-hour"\?/.test(lost.stderr)], [3, true]);
    assert.equal((await schedules(['delete', 'each-hour'])).stdout, 'each-hour deleted; its jobs stay\n');
    assert.equal((await schedules([])).stdout, '');
    assert.equal((await line.run(['jobs', '-q'])).stdout.split('\n').length, 2);
  });

  test('are previewed in words with their times, or refused with what is wrong', async () => {
    const { code, stdout, stderr } = await schedules(['preview', '0 2 * * 1-5', '--tz', 'Asia/Kolkata', '-n', '3']);
    assert.equal(code, 0, stderr);
    const [words, ...times] = stdout.trimEnd().split('\n');
    assert.equal(words, 'At 02:00, Monday through Friday (Asia/Kolkata)');
    assert.equal(times.length, 3);
    for (const time of times) assert.match(time, /^\d{4}-\d\d-\d\dT20:30:00\.000Z\t\d{4}-\d\d-\d\d 02:00 GMT\+5:30$/);
    const refused = await schedules(['preview', '0 0 30 2 *']);
    assert.equal(refused.code, 6);
    assert.match(refused.stderr, /^error: cron "0 0 30 2 \*" is never due/);
  });
});

suite('submit', () => {
  test('creates a schedule for a file that says when, with all that stands under schedule', async () => {
    const whole = `${job}schedule: { cron: "*/5 * * * *", timezone: Asia/Tokyo, name: often, on_overlap: allow, starting_deadline_seconds: 60 }\n`;
    const { code, stdout, stderr } = await line.run(['submit', '-f', line.write('often.yaml', whole), '--json']);
    assert.equal(code, 0, stderr);
    const { spec, ...schedule } = JSON.parse(stdout) as Record<string, unknown>;
    assert.deepEqual(spec, {
      project_id: project,
      model: 'bert-base',
      dataset: 's3://bucket/dataset',
      hyperparams: { epochs: 2 },
    });
    assert.deepEqual(
      ['name', 'timezone', 'onOverlap', 'startingDeadlineSeconds'].map((key) => schedule[key]),
      ['often', 'Asia/Tokyo', 'ALLOW', 60],
    );
  });

  test('creates one for the documented YAML with its missing fields as flags, and for --cron', async () => {
    const flags = ['--model', 'bert-base', '--dataset', 's3://bucket/dataset'];
    const documented = await line.run(['submit', '-f', line.write('documented.yaml', documentedYaml), ...flags]);
    assert.match(documented.stdout, /^sch_\S+ p-times \S+ next \S+:00:00\.000Z\n$/, documented.stderr);
    const named = ['schedules', 'create', '-f', 'documented.yaml', '--name', 'hourly', '--set', 'epochs=2'];
    const created = await line.run([...named, ...flags, '--json=name,cron,spec']);
    const { spec, ...when } = JSON.parse(created.stdout || created.stderr) as { spec: Record<string, unknown> };
    assert.deepEqual(when, { name: 'hourly', cron: '0 * * * *' });
    assert.deepEqual([spec['model'], spec['name']], ['bert-base', undefined], 'the name is that of the schedule');
    assert.deepEqual((spec['hyperparams'] as { epochs: number }).epochs, 2);
    const daily = await line.run(['submit', ...flags, '--cron', '@daily', '--tz', 'Asia/Tokyo']);
    assert.match(daily.stdout, /^sch_\S+ p-times \S+ next \S+T15:00:00\.000Z\n$/, daily.stderr);
    const followed = await line.run(['submit', ...flags, '--cron', '@daily', '-w']);
    assert.deepEqual([followed.code, /--follow is about one job/.test(followed.stderr)], [2, true]);
  });

  test('names every problem of template and schedule at once', async () => {
    const file = line.write('bad.yaml', 'schedule: { timezon: UTC, on_overlap: maybe }\nmodel: m\n');
    const { code, stderr } = await line.run(['submit', '-f', file]);
    assert.equal(code, 6);
    for (const part of [/4 problems/, /dataset is required/, /schedule\.cron is required/, /Did you mean "timezone"/]) {
      assert.match(stderr, part);
    }
    assert.match(stderr, /schedule\.on_overlap must be one of ALLOW, FORBID, REPLACE/);
    const wrong = line.write('wrong.yaml', `${job}schedule: { cron: "0 0 * * * *", timezone: Berlin }\n`);
    const refused = await line.run(['submit', '-f', wrong]);
    assert.equal(refused.code, 6);
    assert.match(refused.stderr, /schedule\.cron: cron "0 0 \* \* \* \*" has six fields/);
    assert.match(refused.stderr, /schedule\.timezone: timezone "Berlin" is no IANA time zone/);
  });
});

suite('Over GraphQL', () => {
  const mutation = `mutation ($input: CreateScheduleInput!) { createSchedule(input: $input) {
    __typename
    ... on CreateSchedulePayload { replayed schedule { id name nextRuns(first: 50) } }
    ... on UserError { code path message }
    ... on ValidationError { issues { path code specPath } }
    ... on IdempotencyConflictError { differingPaths existingJob { id } }
  } }`;
  const spec = { projectId: project, model: 'm', dataset: 'd' };
  const create = async (input: object) =>
    post(door.port, { query: mutation, variables: { input } }).then((answer) => {
      const { data, errors } = answer.json();
      assert.equal(errors, undefined, JSON.stringify(errors));
      return data?.['createSchedule'] as unknown as Record<string, never>;
    });

  test('a key makes one schedule; another input under it is a conflict that says what differs', async () => {
    const input = { spec, cron: '@weekly', name: 'weekly', idempotencyKey: 'k' };
    const [first, second] = [await create(input), await create(input)];
    assert.deepEqual([first['replayed'], second['replayed'], second['schedule']], [false, true, first['schedule']]);
    assert.equal((first['schedule'] as unknown as { nextRuns: string[] }).nextRuns.length, 50);
    const other = await create({ ...input, cron: '@daily' });
    assert.deepEqual(
      [other['code'], other['differingPaths'], other['existingJob']],
      ['IDEMPOTENCY_CONFLICT', ['cron'], null],
    );
  });

  test('every problem of template, calendar and settings is refused at once', async () => {
    const input = {
      spec: { ...spec, hyperparams: { epochs: -1 } },
      cron: 'x',
      timezone: 'y',
      startingDeadlineSeconds: 1,
      name: '',
    };
    const { issues } = (await create(input)) as unknown as { issues: { path: string[]; specPath: string }[] };
    assert.deepEqual(
      issues.map(({ path, specPath }) => `${path.join('.')} ${specPath}`),
      [
        'input.cron schedule.cron',
        'input.timezone schedule.timezone',
        'input.name schedule.name',
        'input.startingDeadlineSeconds schedule.starting_deadline_seconds',
        'input.spec.hyperparams.epochs hyperparams.epochs',
      ],
    );
  });

  test('a job leads to its schedule, and a schedule to its jobs and due times, in pages', async () => {
    await create({ spec, cron: '* * * * *', name: 'each-minute' });
    const { db } = door.gateway.store.database;
    await db.execute(
      "update schedule set next_due_at = date_trunc('minute', now()) - interval '3 hours' where name = 'each-minute'",
    );
    const query = `{ project(id: "${project}") { schedules(first: 10) { totalCount nodes {
      id name lastJob { id } jobs { totalCount nodes { id dueAt schedule { name } submittedBy { __typename id name } resolved { path source } } }
      runs(first: 2) { nodes { dueAt lastDueAt outcome reason { code message } job { id } } pageInfo { hasNextPage endCursor } } } } } }`;
    type Run = { outcome: string; reason: { code: string } | null };
    type Found = {
      name: string;
      id: string;
      lastJob: { id: string };
      jobs: { nodes: Record<string, never>[] };
      runs: { nodes: Run[]; pageInfo: { endCursor: string } };
    };
    const read = async (): Promise<Found | undefined> => {
      const { schedules: found } = (await dataOf(door.port, { query }))['project'] as unknown as {
        schedules: { nodes: Found[] };
      };
      return found.nodes.find(({ name }) => name === 'each-minute');
    };
    // Three rows: what was missed, the job, and the due times since, which that job keeps from starting.
    const isDecided = ([newest]: Run[]) => newest?.reason?.code === 'PREVIOUS_RUNNING';
    const found = await until(
      async () => {
        const now = await read();
        return now && isDecided(now.runs.nodes) && now;
      },
      { timeoutMs: 15_000, what: 'the decision on the due times' },
    );
    const [first] = found.jobs.nodes;
    assert.deepEqual(
      [first?.['schedule'], first?.['submittedBy']],
      [{ name: 'each-minute' }, { __typename: 'Schedule', id: found.id, name: 'each-minute' }],
    );
    assert.ok(
      (first?.['resolved'] as unknown as { path: string; source: string }[]).some(
        ({ path, source }) => path === 'model' && source === 'SCHEDULE',
      ),
    );
    assert.equal(found.lastJob.id, first?.['id']);
    const next = `{ node(id: "${found.id}") { ... on Schedule { runs(first: 2, after: "${found.runs.pageInfo.endCursor}") { nodes { outcome reason { code } } } } } }`;
    const { runs } = (await dataOf(door.port, { query: next }))['node'] as unknown as { runs: { nodes: unknown[] } };
    assert.deepEqual(runs.nodes, [{ outcome: 'SKIPPED', reason: { code: 'MISSED' } }]);
  });
});
