// A machine whose memory ends, for real: a runner in a small control group, where the kernel kills what takes too much.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { skipUnless } from '../support/absent.ts';
import { type Cgroup, makeCgroup } from '../support/cgroup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { createProject, jobState, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const skip = { ...skipUnless('own postgres'), ...skipUnless('own redis'), ...skipUnless('cgroup memory') };
const project = 'p-memory';

suite('a runner with 500 MiB', skip, () => {
  let cluster: Cluster;
  let group: Cgroup;
  before(async () => {
    cluster = await startCluster({ gateways: 1 });
    await createProject(cluster.client(0), project);
    group = makeCgroup('memory');
    group.limitMemory(500 * 1024 ** 2);
    group.write('cgroup.procs', `${cluster.runner().pid}`);
  });
  after(async () => {
    await cluster.stop();
    await until(() => tryTo(() => group.remove()), { what: 'the end of all in the group' });
    await expectNoLeaks();
  });

  async function failed(command: string[]) {
    const { id } = await submit(cluster.client(0), project, { command });
    const state = () => jobState(cluster.client(0), id);
    await until(async () => (await state()).state === 'FAILED', { timeoutMs: 20_000, everyMs: 100, what: 'its end' });
    return (await state()).stateReason;
  }

  test('says of a command that the kernel killed for want of memory that it was that, and what to do', async () => {
    const reason = await failed(['sh', '-c', 'echo before; exec tail /dev/zero']);
    assert.equal(reason?.code, 'OUT_OF_MEMORY');
    assert.match(reason.message, /^The host ran out of memory: ended by SIGKILL after \d+ s\.$/);
    assert.match(reason.hint ?? '', /^Lower what the job keeps in memory/);
    assert.deepEqual(reason.logExcerpt.at(-1), 'before');
  });

  test('says it of a child of a shell too, which tells it by exit code 137', async () => {
    const reason = await failed(['sh', '-c', 'tail /dev/zero; exit $?']);
    assert.equal(reason?.code, 'OUT_OF_MEMORY');
    assert.match(reason.message, /exit code 137/);
  });

  test('does not say it of a command that somebody killed, however many were before', async () => {
    const reason = await failed(['sh', '-c', 'kill -KILL $$']);
    assert.equal(reason?.code, 'SIGNAL');
  });
});

function tryTo(work: () => void): boolean {
  try {
    work();
    return true;
  } catch {
    return false;
  }
}
