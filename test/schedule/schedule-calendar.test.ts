// Due times over both changes of the clocks in three zones, against an oracle that asks Intl minute by minute; and what
// is refused as an expression or a time zone.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { calendarIssues, describeCron, dueTimes, openCalendar } from '../../src/schedule/calendar.ts';
import { dueByOracle } from '../support/due-oracle.ts';

const changes: [string, string, string][] = [
  ['Europe/Berlin', 'forward', '2026-03-28T12:00Z'],
  ['Europe/Berlin', 'back', '2026-10-24T12:00Z'],
  ['America/New_York', 'forward', '2026-03-07T12:00Z'],
  ['America/New_York', 'back', '2026-10-31T12:00Z'],
  ['Australia/Lord_Howe', 'forward', '2026-10-03T00:00Z'],
  ['Australia/Lord_Howe', 'back', '2026-04-04T00:00Z'],
  ['America/Havana', 'forward', '2026-03-07T12:00Z'],
];
const expressions = [
  ...['0 * * * *', '30 * * * *', '*/30 * * * *', '*/7 * * * *', '0 */2 * * *', '* 2 * * *', '*/10 1-2 * * *'],
  ...['0 2 * * *', '30 2 * * *', '15 1 * * *', '30 1 * * *', '0 0 * * *', '0 3 * * *', '0,30 2 * * *', '15 1-3 * * *'],
  ...['30 1,2 * * *', '59 23 * * *', '15 2 * * 0', '30 2 1,29 3,11 *', '0 1 1 * 0'],
];

suite('Due times', () => {
  for (const [zone, direction, from] of changes) {
    test(`in ${zone} when clocks go ${direction} equal the oracle's, forwards and backwards`, () => {
      const [start, end] = [new Date(from), new Date(Date.parse(from) + 36 * 3_600_000)];
      for (const cron of expressions) {
        const calendar = openCalendar({ cron, timezone: zone });
        const expected = dueByOracle(cron, zone, start, end);
        const found: string[] = [];
        for (let next = calendar.after(new Date(+start - 1)); next && next < end; next = calendar.after(next)) {
          found.push(next.toISOString());
        }
        assert.deepEqual(found, expected, `${cron} in ${zone}`);
        const backwards: string[] = [];
        for (let last = calendar.before(end); last && last >= start; last = calendar.before(last)) {
          backwards.unshift(last.toISOString());
        }
        assert.deepEqual(backwards, expected, `${cron} in ${zone}, backwards`);
        for (const time of expected) {
          assert.equal(calendar.after(new Date(Date.parse(time) - 1))?.toISOString(), time, `${cron} from within`);
        }
      }
    });
  }

  test('that clocks leave out come at once after the gap, those that come twice come once', () => {
    const at = (cron: string, from: string) =>
      dueTimes(openCalendar({ cron, timezone: 'Europe/Berlin' }), new Date(from), 2).map((time) => time.toISOString());
    assert.deepEqual(at('30 2 * * *', '2026-03-28T12:00Z'), ['2026-03-29T01:00:00.000Z', '2026-03-30T00:30:00.000Z']);
    assert.deepEqual(at('30 2 * * *', '2026-10-24T12:00Z'), ['2026-10-25T00:30:00.000Z', '2026-10-26T01:30:00.000Z']);
  });
});

suite('An expression', () => {
  const problems = (cron: string, timezone = 'UTC') =>
    calendarIssues({ cron, timezone }, ['input'], new Date('2026-01-01T00:00Z')).map(
      ({ code, path, message }) => `${code} ${path.join('.')}: ${message}`,
    );

  test('of five fields or one of four names is taken', () => {
    for (const cron of ['0 * * * *', '@hourly', '@daily', '@weekly', '@monthly', '0 2 * * 1-5', '0 0 29 2 *']) {
      assert.deepEqual(problems(cron), []);
    }
    assert.equal(describeCron('0 2 * * 1-5'), 'At 02:00, Monday through Friday');
    assert.equal(describeCron('@hourly'), 'Every hour');
  });

  test('of another shape is refused with what is wrong', () => {
    const cases: [string, RegExp][] = [
      ['* * * * * *', /has six fields; five are known, without seconds/],
      ['0 0 30 2 *', /is never due/],
      ['0 0 31 2,4 *', /is never due/],
      ['60 * * * *', /cannot be read: Invalid value for minute: 60/],
      ['* * *', /has 3 fields; it must have five/],
      ['', /is no cron expression/],
      ['@yearly', /is not known/],
      ['2026-01-01T00:00:00', /has 1 fields/],
      ['0 0 ? * *', /has a character in its day of the month/],
      ['*/0 * * * *', /cannot be read/],
      ['x * * * *', /cannot be read/],
      [`${'0,'.repeat(100)}0 * * * *`, /is no cron expression/],
    ];
    for (const [cron, expected] of cases) {
      const found = problems(cron);
      assert.equal(found.length, 1, cron);
      assert.match(found[0] ?? '', /^MALFORMED input\.cron: /);
      assert.match(found[0] ?? '', expected);
    }
  });

  test('has a time zone by name', () => {
    for (const zone of ['UTC', 'Europe/Berlin', 'Asia/Kolkata', 'Etc/GMT+3'])
      assert.deepEqual(problems('@daily', zone), []);
    for (const zone of ['', '+02:00', 'Berlin', 'Europe/Berlim', 'x'.repeat(200)]) {
      assert.match(problems('@daily', zone)[0] ?? '', /^MALFORMED input\.timezone: .* is no IANA time zone/);
    }
    const [issue] = calendarIssues({ cron: '@daily', timezone: 'Europe/Berlim' }, [], new Date());
    assert.equal(issue?.hint, 'Did you mean "Europe/Berlin"?');
    assert.equal(problems('x', 'y').length, 2);
  });
});
