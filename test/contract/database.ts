// The contract of the database port, run over every engine. What only a server can do (waiting for a lock, a timeout)
// is in database.test.ts, and the embedded engine says there that it does not.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import { type Database, databaseErrorCode } from '../../src/database/database.ts';
import { project } from '../../src/project/table.ts';

export function databaseContract(
  name: string,
  open: () => Promise<{ database: Database; close: () => Promise<void> }>,
): void {
  suite(`database contract on ${name}`, () => {
    let database: Database;
    let close: () => Promise<void>;
    before(async () => ({ database, close } = await open()));
    after(() => close());

    test('tables are up to date when it is open', async () => {
      assert.equal(await database.db.$count(project), 0);
    });

    test('a transaction is committed whole', async () => {
      const id = await database.transaction(async (tx) => {
        await tx.insert(project).values({ id: 'p-whole', name: 'whole' });
        await tx.insert(project).values({ id: 'p-whole2', name: 'whole' });
        return 'p-whole';
      });
      assert.equal(id, 'p-whole');
      assert.equal(await database.db.$count(project, sql`${project.name} = 'whole'`), 2);
    });

    test('transactions among hundreds of queries at once each have their connection, and leave none open', async () => {
      const query = (text: string) => database.db.execute(sql`select ${text}::text`);
      const within = () => database.transaction((tx) => tx.execute(sql`select 1 as one`));
      // One connection took a hundred queries at once, and a socket is full after some.
      for (const text of ['', 'x'.repeat(100_000)]) {
        for (let before = 90; before <= 110; before += 5) {
          const queries = Array.from({ length: before }, () => query(text));
          for (let n = 0; n < 20; n++) await Promise.resolve(); // they are on their way, and none is answered
          await Promise.all([...queries, within(), query(text)]);
        }
      }
      const looks = await Promise.all(
        Array.from({ length: 20 }, () => database.db.execute(sql`select now() = statement_timestamp() as alone`)),
      );
      for (const [row] of looks) assert.equal(row?.['alone'], true, 'no connection is in a transaction');
    });

    test('a transaction that throws leaves nothing', async () => {
      const failing = database.transaction(async (tx) => {
        await tx.insert(project).values({ id: 'p-gone', name: 'gone' });
        throw new Error('on purpose');
      });
      await assert.rejects(failing, /on purpose/);
      assert.equal(await database.db.$count(project, sql`${project.id} = 'p-gone'`), 0);
    });

    test('a query on the outer database inside of a transaction throws at once', async () => {
      const nested = database.transaction(async () => database.db.$count(project));
      await assert.rejects(nested, (error) => /use the transaction/.test(String((error as Error).cause)));
      const begun = database.transaction(() => database.transaction(async () => 1));
      await assert.rejects(begun, /inside of a transaction: use the transaction/);
      assert.ok((await database.db.$count(project)) >= 0, 'it goes on working');
    });

    test('an error carries the code of Postgres', async () => {
      const twice = async () => {
        await database.db.insert(project).values({ id: 'p-twice', name: 'x' });
        await database.db.insert(project).values({ id: 'p-twice', name: 'x' });
      };
      await assert.rejects(twice, (error) => databaseErrorCode(error) === '23505');
    });

    test('times come back to the millisecond, JSON and bytes as they went', async () => {
      const [row] = (await database.db.execute(
        sql`select ${'2026-11-23T12:15:35.123Z'}::timestamptz(3) as at, ${'{"a":[1,"ü",null]}'}::text::jsonb as json, ${Buffer.from([0, 255])}::bytea as bytes`,
      )) as unknown as [{ at: string; json: unknown; bytes: Buffer }];
      assert.equal(new Date(row.at).toISOString(), '2026-11-23T12:15:35.123Z');
      assert.deepEqual(row.json, { a: [1, 'ü', null] });
      assert.deepEqual([...row.bytes], [0, 255]);
    });

    test('every answer belongs to its query, with 3 readers beside 2 writers', async () => {
      await database.db.execute(sql`create table answers (writer integer, n integer)`);
      const until = Date.now() + 2_000;
      let [wrong, answers] = [0, 0];
      const reader = async (id: number) => {
        for (let n = 0; Date.now() < until; n++, answers++) {
          const rows = (await database.db.execute(
            sql`select ${id}::integer as id, ${n}::integer as n, repeat('x', ${(n * 37) % 5000}::integer) as pad`,
          )) as unknown as { id: number; n: number; pad: string }[];
          const [row] = rows;
          if (rows.length !== 1 || row?.id !== id || row.n !== n || row.pad.length !== (n * 37) % 5000) wrong++;
        }
      };
      const written = [0, 0];
      const writer = async (id: number) => {
        for (let n = 0; Date.now() < until; n++) {
          await database.transaction(async (tx) => {
            await tx.execute(sql`insert into answers values (${id}, ${n})`);
            await tx.execute(sql`select count(*) from answers`);
          });
          written[id] = n + 1;
        }
      };
      await Promise.all([reader(1), reader(2), reader(3), writer(0), writer(1)]);
      assert.equal(wrong, 0, `${wrong} of ${answers} answers were another query's`);
      assert.ok(answers > 50);
      const [row] = (await database.db.execute(sql`select count(*)::integer as n from answers`)) as unknown as [
        { n: number },
      ];
      assert.equal(row.n, (written[0] ?? 0) + (written[1] ?? 0));
    });

    test('it answers a ping', () => database.ping(5_000));
  });
}
