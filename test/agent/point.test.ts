// Markers: the grammar that training scripts rely on.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { parseMarker } from '../../src/agent/point.ts';
import { parseRecord } from '../../src/protocol/record.ts';

const readAt = 1_700_000_000_000;
const parse = (json: string) => parseMarker(`::astraml ${json}`, readAt);
const points = (json: string) => {
  const record = parse(json);
  return record?.type === 'points' ? record : null;
};

suite('a metric marker', () => {
  test('is a point with its step, epoch and values', () => {
    assert.deepEqual(parse('{"step": 120, "epoch": 0.5, "train/loss": 0.4213, "train/lr": 2.9e-05}'), {
      type: 'points',
      time: readAt,
      step: 120,
      epoch: 0.5,
      values: { 'train/loss': 0.4213, 'train/lr': 2.9e-5 },
    });
    assert.deepEqual(parse('{"type": "metric", "global_step": 7, "loss": 1}')?.type, 'points');
    assert.equal(points('{"global_step": 7, "loss": 1}')?.step, 7);
    assert.equal(points('{"step": 8, "global_step": 7, "loss": 1}')?.step, 8);
  });

  test('needs no step and no epoch, and takes what a float counts as a step', () => {
    assert.deepEqual(
      { ...points('{"loss": 1}'), values: null },
      { type: 'points', time: readAt, step: null, epoch: null, values: null },
    );
    assert.equal(points('{"step": 119.99999999, "loss": 1}')?.step, 120);
    assert.equal(points('{"step": 1e300, "loss": 1}')?.step, null);
    assert.equal(points('{"step": "12", "loss": 1}')?.step, null);
    assert.equal(points('{"step": NaN, "epoch": NaN, "loss": 1}')?.epoch, null);
  });

  test('may go backwards in its steps', () => {
    assert.equal(points('{"step": 5, "loss": 1}')?.step, 5);
    assert.equal(points('{"step": 4, "loss": 1}')?.step, 4);
    assert.equal(points('{"step": -4, "loss": 1}')?.step, -4);
  });

  test('has no metric of a reserved name, at its top only', () => {
    const json =
      '{"type": "metric", "step": 1, "global_step": 2, "epoch": 3, "time": 1, "timestamp": 1, "a": {"step": 4}}';
    assert.deepEqual(points(json)?.values, { 'a/step': 4 });
  });

  test('flattens objects with a slash, to a depth that no script needs', () => {
    assert.deepEqual(points('{"train": {"loss": 1, "acc": {"top1": 2}}, "lr": 3}')?.values, {
      'train/loss': 1,
      'train/acc/top1': 2,
      lr: 3,
    });
    assert.equal(parse(`${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}`), null);
  });

  test('leaves out what is no number', () => {
    assert.deepEqual(points('{"loss": 1, "note": "good", "flag": true, "none": null, "list": [1, 2]}')?.values, {
      loss: 1,
    });
  });

  test('holds 200 metrics at most', () => {
    const json = (count: number) =>
      JSON.stringify(Object.fromEntries(Array.from({ length: count }, (_, i) => [`m${i}`, i])));
    assert.equal(Object.keys(points(json(200))?.values ?? {}).length, 200);
    assert.equal(parse(json(201)), null);
  });

  test('may have 64 KiB, not more', () => {
    const longest = (64 * 1024 - Buffer.byteLength('::astraml {"loss": 1, "note": ""}')) / 2;
    assert.ok(points(`{"loss": 1, "note": "${'é'.repeat(Math.floor(longest))}"}`));
    assert.equal(parse(`{"loss": 1, "note": "${'é'.repeat(Math.floor(longest) + 1)}"}`), null);
  });

  test('takes the names of the grammar', () => {
    for (const name of ['a', '_a', '9', 'train/loss', 'a b.c%d:e-f', `x${'y'.repeat(249)}`]) {
      assert.deepEqual(points(JSON.stringify({ [name]: 1 }))?.values, { [name]: 1 });
    }
    for (const name of ['', '/a', ' a', '-a', 'a\u0000', 'é', 'a\n', `x${'y'.repeat(250)}`]) {
      assert.equal(parse(JSON.stringify({ [name]: 1 })), null, JSON.stringify(name));
    }
  });

  test('is not fooled by names of JavaScript', () => {
    assert.deepEqual(
      Object.entries(
        points('{"__proto__": 1, "constructor": 2, "toString": 3, "a": {"__proto__": {"b": 9}}}')?.values ?? {},
      ),
      [
        ['constructor', 2],
        ['toString', 3],
      ],
    );
    assert.equal(parse('{"__proto__": 1}'), null);
    assert.equal(parse('{"__proto__": {"type": "alert", "title": "x"}}'), null);
    assert.equal(({} as Record<string, unknown>)['b'], undefined);
  });
});

suite('numbers that JSON cannot say', () => {
  test('come bare as Python writes them, or quoted', () => {
    assert.deepEqual(
      points('{"a": NaN, "b": Infinity, "c": -Infinity, "d": "NaN", "e": "-Infinity", "f": [NaN]}')?.values,
      {
        a: 'NaN',
        b: 'Infinity',
        c: '-Infinity',
        d: 'NaN',
        e: '-Infinity',
      },
    );
    assert.deepEqual(points('{"big": 1e400, "small": -1e400, "zero": -0.0}')?.values, {
      big: 'Infinity',
      small: '-Infinity',
      zero: -0,
    });
  });

  test('stay words inside of strings and names', () => {
    assert.deepEqual(parse('{"type": "alert", "title": "loss is NaN, \\"-Infinity\\" \\\\", "text": "Infinity"}'), {
      type: 'alert',
      time: readAt,
      level: 'warn',
      title: 'loss is NaN, "-Infinity" \\',
      text: 'Infinity',
    });
    assert.deepEqual(points('{"NaN": 1, "Infinity": NaN}')?.values, { NaN: 1, Infinity: 'NaN' });
  });

  test('do not make a malformed marker well-formed', () => {
    for (const json of ['{"a": NaNa}', '{"a": +Infinity}', '{"a": nan}', '{NaN: 1}x', '{"a": N}'])
      assert.equal(parse(json), null, json);
  });
});

test('the time of a marker is its own, in seconds or milliseconds', () => {
  assert.equal(points('{"time": 1700000001.25, "loss": 1}')?.time, 1_700_000_001_250);
  assert.equal(points('{"timestamp": 1700000001250, "loss": 1}')?.time, 1_700_000_001_250);
  for (const time of ['-1', '0', '1e30', '"2024-01-01"', 'null', 'NaN']) {
    assert.equal(points(`{"time": ${time}, "loss": 1}`)?.time, readAt, time);
  }
});

suite('other markers', () => {
  test('say progress', () => {
    assert.deepEqual(parse('{"type": "progress", "step": 120, "total_steps": 1200, "epoch": 0.5, "total_epochs": 5}'), {
      type: 'progress',
      time: readAt,
      step: 120,
      totalSteps: 1200,
      epoch: 0.5,
      totalEpochs: 5,
    });
    assert.equal(parse('{"type": "progress", "total_steps": 5}'), null);
  });

  test('say a checkpoint', () => {
    assert.deepEqual(parse('{"type": "checkpoint", "path": "ckpt-120", "step": 120}'), {
      type: 'checkpoint',
      time: readAt,
      step: 120,
      path: 'ckpt-120',
    });
    for (const path of ['""', '5', 'null', `"${'x'.repeat(20_000)}"`])
      assert.equal(parse(`{"type": "checkpoint", "path": ${path}}`), null);
  });

  test('say an alert', () => {
    const alert = parse('{"type": "alert", "level": "error", "title": "loss spike", "text": "loss 9.1 at step 120"}');
    assert.deepEqual(alert, {
      type: 'alert',
      time: readAt,
      level: 'error',
      title: 'loss spike',
      text: 'loss 9.1 at step 120',
    });
    for (const json of [
      '{"type": "alert"}',
      '{"type": "alert", "title": 5}',
      '{"type": "alert", "title": "x", "level": "fatal"}',
    ]) {
      assert.equal(parse(json), null, json);
    }
  });

  test('of an unknown type are none', () => {
    assert.equal(parse('{"type": "metrics", "loss": 1}'), null);
    assert.equal(parse('{"type": 5, "loss": 1}'), null);
  });
});

test('what is no marker is a line', () => {
  for (const line of [
    '',
    'loss 1',
    '::astraml',
    '::astraml{"loss": 1}',
    ' ::astraml {"loss": 1}',
    '::ASTRAML {"loss": 1}',
  ]) {
    assert.equal(parseMarker(line, readAt), null, line);
  }
  for (const json of [
    '',
    '5',
    '"a"',
    'null',
    '[]',
    '[{"loss": 1}]',
    '{}',
    '{"step": 1}',
    '{"loss": 1} x',
    '{"loss": 1',
    '{loss: 1}',
    "{'loss': 1}",
  ]) {
    assert.equal(parse(json), null, json);
  }
});

test('a marker of quotes and backslashes takes no time', () => {
  const startedAt = performance.now();
  for (const part of ['\\"', '"', '\\', '"\\', 'NaN', '-']) {
    const json = `{"a": "${part.repeat(60_000 / part.length)}`;
    for (let round = 0; round < 5; round++) assert.equal(parse(json), null);
  }
  assert.ok(performance.now() - startedAt < 1_000, `${performance.now() - startedAt} ms`);
});

test('whatever is parsed is a record that the gateway takes', () => {
  const name = fc.oneof(
    fc.constantFrom('type', 'step', 'epoch', 'time', 'loss', 'path', 'title', 'text', 'total_steps', '__proto__'),
    fc.string(),
  );
  const word = fc.constantFrom('metric', 'progress', 'checkpoint', 'alert', 'NaN', 'Infinity');
  const value = fc.oneof(word, fc.jsonValue(), fc.double(), fc.constantFrom(null, 1e308, -0, 1.5e10, 1.7e12));
  fc.assert(
    fc.property(fc.dictionary(name, value, { maxKeys: 8 }), (object) => {
      const record = parse(JSON.stringify(object));
      if (record) assert.deepEqual(parseRecord(JSON.parse(JSON.stringify(record))), JSON.parse(JSON.stringify(record)));
    }),
    { numRuns: 3_000 },
  );
});
