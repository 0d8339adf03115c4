// The uplink of an attempt against a gateway of a few lines, which loses, repeats and refuses as it is told.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Spool } from '../../src/agent/spool.ts';
import { RecordSender } from '../../src/agent/record-sender.ts';
import { NotAppended } from '../../src/bus/bus.ts';
import { ApiError } from '../../src/client/client.ts';
import type { Acknowledgement, Directive } from '../../src/protocol/control.ts';
import { type Batch, decodeBatch, maxBatchBytes, numbersOf, type RunnerRecord } from '../../src/protocol/record.ts';
import { until } from '../support/until.ts';

const root = mkdtempSync(join(tmpdir(), 'uplink-'));
after(async () => {
  rmSync(root, { recursive: true, force: true });
  await expectNoLeaks();
});

const line = (text: string): RunnerRecord => ({ type: 'line', time: 1, stream: 'STDOUT', text });

/** Stores what continues, as the intake does. */
class Gateway {
  readonly stored: unknown[] = [];
  readonly batches: Batch[] = [];
  readonly times: number[] = [];
  mark = 0;
  duplicates = 0;
  holes = 0;
  renewals = 0;
  directives: Directive[] = [];
  /** Records of a batch that it stores at most. */
  most = Infinity;

  take(text: string): Acknowledgement {
    const batch = decodeBatch(text);
    assert.ok(batch, 'a batch arrives whole');
    assert.equal(batch.leaseToken, 'lease');
    assert.ok(text.length <= maxBatchBytes + 40_000);
    this.batches.push(batch);
    this.times.push(performance.now());
    let number = batch.first;
    for (const record of batch.records.slice(0, this.most)) {
      if (number > this.mark + 1) {
        this.holes++;
        break;
      }
      const length = numbersOf(record as RunnerRecord);
      if (number <= this.mark) this.duplicates++;
      else {
        this.stored.push(record);
        this.mark = number + length - 1;
      }
      number += length;
    }
    return this.acknowledge();
  }

  acknowledge(): Acknowledgement {
    return { attemptId: 'att_1', committed: this.mark, directives: this.directives };
  }
}

type Case = {
  spool: Spool;
  uplink: RecordSender;
  gateway: Gateway;
  obeyed: Directive[];
  troubles: unknown[];
  add(...texts: string[]): void;
};

/** `deliver` is the way of a batch: it hands it to the gateway and acknowledgements to the uplink, or does not. */
async function withUplink(
  deliver: (batch: string, gateway: Gateway, acknowledge: (answer: Acknowledgement) => void) => Promise<void> | void,
  work: (one: Case) => Promise<void>,
  options: { heartbeatMs?: number; resendMs?: number; renew?: (gateway: Gateway) => Promise<Acknowledgement> } = {},
): Promise<void> {
  const gateway = new Gateway();
  const obeyed: Directive[] = [];
  const troubles: unknown[] = [];
  const spool = await Spool.create(mkdtempSync(join(root, 'spool-')));
  const uplink = new RecordSender({
    attemptId: 'att_1',
    leaseToken: 'lease',
    spool,
    append: async (_stream, batch) =>
      deliver(batch, gateway, (answer) => void setImmediate(() => uplink.acknowledge(answer))),
    renew: async () => {
      gateway.renewals++;
      return options.renew ? options.renew(gateway) : Promise.reject(new Error('away'));
    },
    heartbeatMs: options.heartbeatMs ?? 10_000,
    ...(options.resendMs ? { resendMs: options.resendMs } : {}),
    onDirective: (directive) => void obeyed.push(directive),
    onTrouble: (error) => void troubles.push(error),
  });
  const add = (...texts: string[]) => {
    for (const text of texts) {
      spool.append(line(text));
      uplink.notify();
    }
  };
  try {
    await work({ spool, uplink, gateway, obeyed, troubles, add });
  } finally {
    await uplink.end();
    await uplink.end();
    await spool.remove();
  }
}

const well = (batch: string, gateway: Gateway, acknowledge: (answer: Acknowledgement) => void) =>
  acknowledge(gateway.take(batch));
const numbered = (count: number, from = 1) => Array.from({ length: count }, (_, n) => `line ${n + from}`);
const stored = (gateway: Gateway) => (gateway.stored as { text: string }[]).map(({ text }) => text);

suite('records', { concurrency: true }, () => {
  test('go at once from an idle attempt, then together every 100 ms', () =>
    withUplink(well, async ({ uplink, gateway, add }) => {
      await until(() => gateway.batches.length === 1); // the first sign of life
      await sleep(120);
      const startedAt = performance.now();
      add('first');
      await until(() => gateway.mark === 1, { everyMs: 1 });
      assert.ok(performance.now() - startedAt < 80);
      for (let n = 0; n < 10; n++) {
        add(`more ${n}`);
        await sleep(10);
      }
      await uplink.drained();
      assert.equal(gateway.mark, 11);
      assert.ok(gateway.batches.length <= 5, `${gateway.batches.length} batches`);
    }));

  test('are sent again without an acknowledgement, after one second and then after two, and stored once', () => {
    let lost = 2;
    return withUplink(
      (batch, gateway, acknowledge) => (--lost >= 0 ? undefined : acknowledge(gateway.take(batch))),
      async ({ uplink, gateway, add }) => {
        const startedAt = performance.now();
        add(...numbered(5));
        await uplink.drained();
        const seconds = (performance.now() - startedAt) / 1000;
        assert.ok(seconds > 2.9 && seconds < 4.5, `${seconds} s`);
        assert.deepEqual(stored(gateway), numbered(5));
      },
    );
  });

  test('do not pile up while no gateway takes them, neither from the bus nor over HTTP', () => {
    const waiting: string[] = [];
    let isAway = true;
    return withUplink(
      (batch, gateway, acknowledge) => (isAway ? void waiting.push(batch) : acknowledge(gateway.take(batch))),
      async ({ uplink, gateway, add }) => {
        add(...numbered(5));
        await sleep(6_000);
        assert.ok(gateway.renewals >= 3, `asked ${gateway.renewals} times`);
        assert.ok(waiting.length >= 2 && waiting.length <= 4, `${waiting.length} batches wait`);
        isAway = false;
        for (const batch of waiting) uplink.acknowledge(gateway.take(batch));
        add(...numbered(5, 6));
        await uplink.drained();
        assert.deepEqual(stored(gateway), numbered(10));
      },
      { heartbeatMs: 200 },
    );
  });

  for (const [what, answer] of [
    ['without an answer', () => Promise.resolve()],
    ['when the answer of the bus is lost', () => Promise.reject(new Error('the connection broke'))],
  ] as const) {
    test(`are sent again after 1, 2, 4 … 30 pauses ${what}: it may stand on its stream`, () => {
      const times: number[] = [];
      return withUplink(
        () => {
          times.push(performance.now());
          return answer();
        },
        async ({ add }) => {
          add('a');
          await until(() => times.length === 9, { timeoutMs: 20_000 });
          const pauses = times.slice(1).map((time, n) => (time - (times[n] ?? 0)) / 60);
          for (const [n, least] of [1, 2, 4, 8, 16, 30, 30, 30].entries()) {
            assert.ok((pauses[n] ?? 0) > least * 0.95, `${pauses.join(', ')}`);
          }
        },
        { resendMs: 60 },
      );
    });
  }

  test('that the bus certainly did not take are offered again each pause: nothing piles up', () => {
    let offers = 0;
    let isAway = true;
    return withUplink(
      (batch, gateway, acknowledge) => {
        offers++;
        if (isAway) throw new NotAppended('away');
        acknowledge(gateway.take(batch));
      },
      async ({ uplink, gateway, add }) => {
        add(...numbered(5));
        await until(() => offers >= 40, { timeoutMs: 15_000 }); // growing pauses would make it 108 s
        isAway = false;
        await uplink.drained();
        assert.deepEqual(stored(gateway), numbered(5));
      },
      { resendMs: 100 },
    );
  });

  test('are stored once when it is the acknowledgement that was lost', () => {
    let lost = 1;
    return withUplink(
      (batch, gateway, acknowledge) => {
        const answer = gateway.take(batch);
        if (--lost < 0) acknowledge(answer);
      },
      async ({ uplink, gateway, add }) => {
        add(...numbered(5));
        await uplink.drained();
        assert.deepEqual(stored(gateway), numbered(5));
        assert.equal(gateway.duplicates, 5);
      },
    );
  });

  test('go on from the number that was committed, when only a part was', () =>
    withUplink(well, async ({ uplink, gateway, add }) => {
      gateway.most = 7;
      add(...numbered(40));
      await uplink.drained();
      assert.deepEqual(stored(gateway), numbered(40));
      assert.equal(gateway.holes, 0);
    }));

  test('take the numbers of a gap', () =>
    withUplink(well, async ({ uplink, gateway, spool, add }) => {
      add('a');
      spool.append({ type: 'gap', time: 1, lines: 1_000_000, reason: 'SPOOL_OVERFLOW' });
      add('b');
      await uplink.drained();
      assert.equal(gateway.mark, 1_000_002);
      assert.equal(gateway.stored.length, 3);
      assert.equal(gateway.holes, 0);
    }));
});

suite('acknowledgements', () => {
  test('that come twice make nothing go twice', () =>
    withUplink(
      (batch, gateway, acknowledge) => {
        const answer = gateway.take(batch);
        acknowledge(answer);
        setTimeout(() => acknowledge(answer), 3);
        setTimeout(() => acknowledge({ ...answer, committed: 0 }), 5); // and an old one
      },
      async ({ uplink, gateway, add }) => {
        add(...numbered(10_000));
        await uplink.drained();
        await sleep(20);
        assert.deepEqual(stored(gateway), numbered(10_000));
        assert.equal(gateway.duplicates, 0);
        assert.ok(gateway.batches.length <= 12, `${gateway.batches.length} batches`);
      },
    ));

  test('of another attempt are not ours', () =>
    withUplink(
      (_batch, _gateway, acknowledge) =>
        acknowledge({ attemptId: 'att_2', committed: 99, directives: [{ type: 'ABANDON' }] }),
      async ({ uplink, obeyed, add }) => {
        add('a');
        await sleep(50);
        let isDrained = false;
        void uplink.drained().then(() => (isDrained = true));
        await sleep(50);
        assert.equal(isDrained, false);
        assert.deepEqual(obeyed, []);
      },
    ));

  test('bring directives', () =>
    withUplink(well, async ({ uplink, gateway, obeyed }) => {
      await until(() => gateway.batches.length === 1);
      gateway.directives = [{ type: 'CANCEL', graceSeconds: 3 }];
      const startedAt = performance.now();
      uplink.ask();
      await until(() => obeyed.length > 0, { everyMs: 1 });
      assert.ok(performance.now() - startedAt < 300);
      assert.deepEqual(obeyed[0], { type: 'CANCEL', graceSeconds: 3 });
      gateway.directives = [{ type: 'ABANDON' }];
      uplink.ask();
      await until(() => obeyed.some(({ type }) => type === 'ABANDON'));
    }));
});

suite('an idle attempt', () => {
  test('says that it lives', () =>
    withUplink(
      well,
      async ({ gateway, add, uplink }) => {
        add('a');
        await uplink.drained();
        await until(() => gateway.batches.length >= 6);
        assert.deepEqual(gateway.batches.at(-1)?.records, []);
        assert.equal(gateway.batches.at(-1)?.first, 2);
        const pauses = gateway.times.slice(3).map((time, index) => time - (gateway.times[index + 2] ?? 0));
        for (const pause of pauses) assert.ok(pause > 150 && pause < 600, `${pause} ms`);
      },
      { heartbeatMs: 200 },
    ));
});

suite('a bus that is away', { concurrency: true }, () => {
  test('loses nothing, is told once, and the lease goes on over HTTP', () => {
    let away = true;
    return withUplink(
      (batch, gateway, acknowledge) => {
        if (away) throw new Error('the bus is away');
        acknowledge(gateway.take(batch));
      },
      async ({ uplink, gateway, obeyed, troubles, add }) => {
        add(...numbered(2_500));
        gateway.directives = [{ type: 'CANCEL', graceSeconds: null }];
        await until(() => gateway.renewals >= 2, { timeoutMs: 8_000 });
        assert.equal(obeyed[0]?.type, 'CANCEL');
        assert.equal(troubles.length, 1);
        away = false;
        await uplink.drained();
        assert.deepEqual(stored(gateway), numbered(2_500));
      },
      { heartbeatMs: 500, renew: async (gateway) => gateway.acknowledge() },
    );
  });

  test('with a gateway that is away as well is told once', () =>
    withUplink(
      () => Promise.reject(new Error('the bus is away')),
      async ({ troubles, gateway, add }) => {
        add('a');
        await until(() => gateway.renewals >= 2, { timeoutMs: 8_000 });
        assert.equal(troubles.length, 1);
      },
      { heartbeatMs: 200 },
    ));

  test('brings records up, and their acknowledgements come over HTTP', () =>
    withUplink(
      (batch, gateway) => void gateway.take(batch),
      async ({ uplink, gateway, add }) => {
        add(...numbered(3));
        await uplink.drained();
        assert.deepEqual(stored(gateway), numbered(3));
        assert.ok(gateway.renewals > 0);
      },
      { heartbeatMs: 500, renew: async (gateway) => gateway.acknowledge() },
    ));

  test('does not keep the uplink from ending, also when it never answers', () =>
    withUplink(
      () => new Promise(() => {}),
      async ({ uplink, add }) => {
        add('a');
        await sleep(20);
        const startedAt = performance.now();
        await uplink.end();
        await uplink.drained();
        assert.ok(performance.now() - startedAt < 200);
      },
    ));
});

test('a backlog of 200,000 lines goes whole and in order, and memory stays bounded', async (t) => {
  const count = 200_000;
  let expected = 0;
  await withUplink(
    (text, gateway, acknowledge) => {
      const answer = gateway.take(text);
      for (const { text: got } of gateway.stored.splice(0) as { text: string }[])
        assert.equal(got, `step ${++expected} loss 0.123456`);
      gateway.batches.length = 0;
      acknowledge(answer);
    },
    async ({ uplink, spool }) => {
      for (let n = 1; n <= count; n++) {
        spool.append(line(`step ${n} loss 0.123456`));
        if (n % 5_000 === 0) await sleep(5); // a fast trainer, and a disk that keeps up
      }
      const startedAt = performance.now();
      uplink.notify();
      await uplink.drained();
      const seconds = (performance.now() - startedAt) / 1000;
      t.diagnostic(`${Math.round(count / seconds)} lines/s`);
      assert.equal(expected, count);
      assert.ok(spool.heldBytes < 4 * 1024 * 1024, `${spool.heldBytes} bytes in memory`);
      assert.ok(seconds < 15, `${seconds} s`);
    },
  );
});

suite('a database that comes back older', { concurrency: true }, () => {
  const withSend = (batch: string, gateway: Gateway): Acknowledgement => ({
    ...gateway.take(batch),
    send: decodeBatch(batch)?.send,
  });
  const texts = (gateway: Gateway) => gateway.stored.map((record) => (record as { text?: string }).text ?? record);
  const restore = (gateway: Gateway, mark: number) => {
    gateway.mark = mark;
    gateway.stored.splice(mark);
  };

  test('is told what the spool still has, behind a gap for what it gave away', async () => {
    // Each answer comes three times: copies of a batch are answered each.
    const deliver = (batch: string, gateway: Gateway, acknowledge: (answer: Acknowledgement) => void) => {
      for (let copy = 0; copy < 3; copy++) acknowledge(withSend(batch, gateway));
    };
    await withUplink(deliver, async ({ uplink, gateway, add, spool }) => {
      add('1', '2', '3', '4', '5');
      await uplink.drained();
      add('6');
      await uplink.drained();
      restore(gateway, 2);
      add('7', '8');
      await until(() => gateway.mark === spool.last, { what: 'the end of the spool' });
      await uplink.drained();
      const [gap] = gateway.stored.slice(2, 3) as { type: string; lines: number; reason: string }[];
      assert.deepEqual([gap?.type, gap?.lines, gap?.reason], ['gap', 4, 'RESTORED']);
      assert.deepEqual(texts(gateway).toSpliced(2, 1), ['1', '2', '7', '8']);
      assert.equal(gateway.stored.length, 5, 'one gap');
    });
  });

  test('is seen by a heartbeat of an attempt that says nothing, and over HTTP while the bus is away', async () => {
    for (const away of [false, true]) {
      let cut = false;
      const deliver = (batch: string, gateway: Gateway, acknowledge: (answer: Acknowledgement) => void) => {
        if (!cut) acknowledge(withSend(batch, gateway));
      };
      const renew = (gateway: Gateway) => Promise.resolve(gateway.acknowledge());
      await withUplink(
        deliver,
        async ({ uplink, gateway, add }) => {
          add('1', '2', '3');
          await uplink.drained();
          restore(gateway, 1);
          cut = away;
          if (away) {
            await until(() => gateway.renewals > 1);
            cut = false;
          }
          await until(() => gateway.mark === 3);
          assert.equal((gateway.stored[1] as { lines: number }).lines, 2);
        },
        { heartbeatMs: 50, resendMs: 20, renew },
      );
    }
  });

  test('that does not know the attempt ends it after three heartbeats, and not before', async () => {
    const unknown = new ApiError('Attempt att_1 does not exist.', {
      code: 'NOT_FOUND',
      retryable: false,
      httpStatus: 404,
    });
    let since = 0;
    await withUplink(
      () => {},
      async ({ obeyed, add }) => {
        since = performance.now();
        add('1');
        await until(() => obeyed.length > 0);
        assert.deepEqual(obeyed[0], { type: 'ABANDON' });
        assert.ok(performance.now() - since >= 400, 'a heartbeat until it asks, three until it believes');
      },
      { heartbeatMs: 100, resendMs: 20, renew: () => Promise.reject(unknown) },
    );
  });

  test('that is away, or refuses the token, costs no attempt', async () => {
    for (const code of ['UNREACHABLE', 'UNAUTHENTICATED', 'INTERNAL']) {
      await withUplink(
        () => {},
        async ({ obeyed, gateway, add }) => {
          add('1');
          await until(() => gateway.renewals > 30);
          assert.deepEqual(obeyed, [], code);
        },
        { heartbeatMs: 20, resendMs: 10, renew: () => Promise.reject(new ApiError('No.', { code, retryable: true })) },
      );
    }
  });
});
