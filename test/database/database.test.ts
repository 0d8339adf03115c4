// The database port: one contract on both engines, and what only one of them does.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chownSync, realpathSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sql } from 'drizzle-orm';
import { type Database, databaseErrorCode, openDatabase, passingFault } from '../../src/database/database.ts';
import { DataDirInUse } from '../../src/database/embedded.ts';
import { project } from '../../src/project/table.ts';
import { runner } from '../../src/runner/table.ts';
import { databaseContract } from '../contract/database.ts';
import { skipUnless } from '../support/absent.ts';
import { seedDataDir } from '../support/embedded.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

/** With a database in it that was opened before. */
async function newDataDir(): Promise<string> {
  const dataDir = await mkdtemp(join(tmpdir(), 'astraml-embedded-'));
  await seedDataDir(dataDir);
  return dataDir;
}

databaseContract('the embedded engine', async () => {
  const dataDir = await newDataDir();
  const database = await openDatabase({ url: null, dataDir });
  return {
    database,
    close: async () => {
      await database.close();
      await rm(dataDir, { recursive: true });
    },
  };
});

suite('the embedded engine', () => {
  test('refuses a pool of more than one connection', async () => {
    await assert.rejects(openDatabase({ url: null, dataDir: tmpdir(), poolSize: 2 }), /poolSize must be 1/);
  });

  test('keeps its data, and refuses a folder that is open', async () => {
    const dataDir = await newDataDir();
    const first = await openDatabase({ url: null, dataDir });
    await first.db.insert(project).values({ id: 'p-kept', name: 'kept' });
    await assert.rejects(openDatabase({ url: null, dataDir }), DataDirInUse);
    assert.equal(await first.db.$count(project), 1, 'the first goes on');
    await first.close();
    await first.close(); // ending twice is fine
    const second = await openDatabase({ url: null, dataDir });
    assert.equal(await second.db.$count(project), 1);
    await second.close();
    await rm(dataDir, { recursive: true });
  });

  test('has its socket in a folder that is open to nobody else, and leaves nothing behind', async () => {
    const dataDir = await newDataDir();
    const database = await openDatabase({ url: null, dataDir });
    const socketPath = await readFile(join(dataDir, 'database.socket'), 'utf8');
    const folder = await stat(dirname(socketPath));
    assert.deepEqual([folder.mode & 0o777, folder.uid], [0o700, process.getuid?.()]);
    assert.ok(Buffer.byteLength(socketPath) <= 107);
    await database.close();
    assert.deepEqual(await readdir(dataDir), ['database']);
    await assert.rejects(stat(dirname(socketPath)), { code: 'ENOENT' });
    await rm(dataDir, { recursive: true });
  });

  /** Listens where builds up to 0.1.0 had their socket. */
  const takeOlderPath = async (dataDir: string, uid?: number) => {
    await mkdir(join(dataDir, 'database'), { recursive: true });
    const name = createHash('sha256')
      .update(realpathSync(join(dataDir, 'database')))
      .digest('hex')
      .slice(0, 20);
    const path = join(tmpdir(), `astraml-${name}.sock`);
    const server = createServer((socket) => socket.destroy()).listen(path);
    await once(server, 'listening');
    if (uid !== undefined) chownSync(path, uid, uid);
    return {
      async close() {
        server.close();
        await once(server, 'close');
        await rm(path, { force: true });
      },
    };
  };

  test('refuses a folder that an older build has open, at the path that was its lock', async () => {
    const dataDir = await newDataDir();
    const older = await takeOlderPath(dataDir);
    await assert.rejects(openDatabase({ url: null, dataDir }), DataDirInUse);
    await older.close();
    await (await openDatabase({ url: null, dataDir })).close();
    await rm(dataDir, { recursive: true });
  });

  test('starts although another user has taken that path', skipUnless('root'), async () => {
    const dataDir = await newDataDir();
    const stranger = await takeOlderPath(dataDir, 65_534);
    await (await openDatabase({ url: null, dataDir })).close();
    await stranger.close();
    await rm(dataDir, { recursive: true });
  });

  test('removes what a killed start left, and nothing that another one names', async () => {
    const dataDir = await newDataDir();
    const innocent = await mkdtemp(join(tmpdir(), 'astraml-'));
    await writeFile(join(innocent, 'db'), 'a file');
    for (const path of [join(innocent, 'db'), join(dataDir, 'other'), '']) {
      await writeFile(join(dataDir, 'database.socket'), path);
      await (await openDatabase({ url: null, dataDir })).close();
    }
    assert.equal(await readFile(join(innocent, 'db'), 'utf8'), 'a file');
    await rm(join(innocent, 'db'));

    const source = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', source, join(innocent, 'db')]);
    assert.ok((await stat(join(innocent, 'db'))).isSocket());
    await writeFile(join(dataDir, 'database.socket'), join(innocent, 'db'));
    await (await openDatabase({ url: null, dataDir })).close();
    await assert.rejects(stat(innocent), { code: 'ENOENT' });
    await rm(dataDir, { recursive: true });
  });
});

if (!skipUnless('postgres').skip) {
  databaseContract('a Postgres server', async () => {
    const server = await startPostgres();
    const database = await openDatabase({ url: (await createDatabase(server)).url, dataDir: '', poolSize: 8 });
    return {
      database,
      close: async () => {
        await database.close();
        await server.stop();
      },
    };
  });
}

suite('a Postgres server', skipUnless('own postgres'), () => {
  let server: PostgresServer;
  let database: Database;
  before(async () => {
    server = await startPostgres();
    database = await openDatabase({ url: (await createDatabase(server)).url, dataDir: '' });
  });
  after(async () => {
    await database.close();
    await server.stop();
  });

  test('ten gateways that start at once on an empty database migrate it once', async () => {
    const { url } = await createDatabase(server);
    const opened = await Promise.all(Array.from({ length: 10 }, () => openDatabase({ url, dataDir: '', poolSize: 1 })));
    assert.equal(await opened[0]?.db.$count(project), 0);
    await Promise.all(opened.map((one) => one.close()));
  });

  test('a query that takes too long is a TIMEOUT', async () => {
    const slow = database.transaction(async (tx) => {
      await tx.execute(sql`set local statement_timeout = 50`);
      await tx.execute(sql`select pg_sleep(5)`);
    });
    await assert.rejects(slow, (error) => passingFault(error)?.code === 'TIMEOUT');
  });

  test('one that is read-only, or takes no connections for now, is UNAVAILABLE', async () => {
    const { name, url } = await createDatabase(server);
    const own = await openDatabase({ url, dataDir: '', poolSize: 1 });
    const write = own.transaction(async (tx) => {
      await tx.execute(sql`set transaction read only`); // as on a standby
      await tx.insert(project).values({ id: 'p-one', name: 'one' });
    });
    await assert.rejects(write, (error) => passingFault(error)?.code === 'UNAVAILABLE');
    await database.db.execute(sql`alter database ${sql.identifier(name)} allow_connections false`);
    await database.db.execute(sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`);
    const isAway = (error: unknown) => passingFault(error)?.code === 'UNAVAILABLE';
    for (let n = 0; n < 5; n++) await assert.rejects(own.db.$count(project), isAway, `try ${n}`);
    await assert.rejects(openDatabase({ url, dataDir: '' }), (error) => databaseErrorCode(error) === '55000' && isAway(error)); // prettier-ignore
    await database.db.execute(sql`alter database ${sql.identifier(name)} allow_connections true`);
    const isBack = () => own.db.$count(project).then(() => true, (error: unknown) => !isAway(error) && assert.fail(String(error))); // prettier-ignore
    await until(isBack, { what: 'a database that takes connections again' });
    await own.close();
  });

  test('a row that another transaction holds can be skipped', async () => {
    await database.db.insert(project).values([
      { id: 'p-one', name: 'one' },
      { id: 'p-two', name: 'two' },
    ]);
    let release = () => {};
    const released = new Promise<void>((resolve) => (release = resolve));
    let held = () => {};
    const holding = new Promise<void>((resolve) => (held = resolve));
    const first = database.transaction(async (tx) => {
      await tx.execute(sql`select id from project where id = 'p-one' for update`);
      held();
      await released;
    });
    await holding;
    const rows = await database.db.execute(sql`select id from project order by id for update skip locked`);
    release();
    await first;
    assert.deepEqual(
      [...rows].map((row) => row['id']),
      ['p-two'],
    );
  });

  test('transactions that lose their server are UNAVAILABLE and end no process, and every connection comes back', async () => {
    const away = (error: unknown) => passingFault(error)?.code === 'UNAVAILABLE';
    for (let round = 0; round < 4; round++) {
      let running = true;
      const failures: unknown[] = [];
      const write = async (n: number) => {
        while (running) {
          const work = database.transaction(async (tx) => {
            for (let query = 0; query < 5; query++) {
              await tx.execute(sql`select pg_sleep(${n / 1000})`);
              if (query % 2) await sleep(n % 3); // the server may go away between two queries too
            }
          });
          await work.catch((error: unknown) => {
            failures.push(error);
            running = false;
          });
        }
      };
      const writers = Array.from({ length: 10 }, (_, n) => write(n));
      await sleep(100);
      if (round % 2) await server.kill();
      const end = sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'astraml'`;
      if (!(round % 2)) await database.db.execute(end).catch(() => {});
      await Promise.all(writers);
      assert.ok(failures.length > 0 && failures.every(away), String(failures.find((error) => !away(error))));
      if (round % 2) await server.restart();
      const began = performance.now();
      // Connections that broke are found broken by whoever uses them first.
      const each = () => database.transaction((tx) => tx.execute(sql`select pg_sleep(0.02)`));
      const all = () => Promise.all(Array.from({ length: 20 }, each)).then(() => true, () => false); // prettier-ignore
      await until(all);
      assert.ok(performance.now() - began < 5_000, 'none hangs');
    }
  });

  test('a connection asks nothing for itself: nobody would wait for that when it breaks, and the process would end', async () => {
    const asked: string[] = [];
    const url = new URL((await createDatabase(server)).url);
    const port = Number(url.port);
    const way = createServer((near) => {
      const far = connect(port, '127.0.0.1');
      near.on('data', (bytes) => asked.push(bytes.toString('latin1')));
      near.pipe(far).pipe(near);
      for (const socket of [near, far]) socket.on('error', () => {});
    }).listen(0, '127.0.0.1');
    await once(way, 'listening');
    url.port = String((way.address() as AddressInfo).port);
    const own = await openDatabase({ url: url.href, dataDir: '' });
    asked.splice(0); // migrations
    const machine = { id: 'run_1', name: 'one', tokenId: 'tok_1', gpus: [], version: '0', bootId: 'boot' };
    await own.db.insert(runner).values({ ...machine, labels: ['a "b", c', ''] });
    assert.deepEqual((await own.db.select().from(runner))[0]?.labels, ['a "b", c', '']);
    await own.close();
    way.close();
    assert.doesNotMatch(asked.join(''), /typarray/);
  });

  test('a server that is away is UNAVAILABLE, and its return is enough to go on', async () => {
    await server.kill();
    await assert.rejects(database.db.$count(project), (error) => {
      assert.ok(databaseErrorCode(error), 'it has a code');
      return passingFault(error)?.code === 'UNAVAILABLE';
    });
    await server.restart();
    let count: number | undefined;
    for (let tries = 0; count === undefined && tries < 50; tries++) {
      count = await database.db.$count(project).catch(() => undefined);
    }
    assert.equal(count, 2);
  });
});
