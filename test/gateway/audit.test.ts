// GraphQL over HTTP: the audits of graphql-http, run against the gateway as it is hardened, with a token.
import { after, before, suite, test } from 'node:test';
import { serverAudits } from 'graphql-http';
import { expectNoLeaks } from '../support/leaks.ts';
import { bearer, adminToken, type Door, openDoor } from '../support/door.ts';
import assert from 'node:assert/strict';

suite('GraphQL over HTTP', () => {
  let door: Door;
  before(async () => void (door = await openDoor()));
  after(async () => {
    await door.close();
    await expectNoLeaks();
  });

  test('every audit passes', async (t) => {
    const fetchFn = (url: string, init: RequestInit = {}) =>
      fetch(url, { ...init, headers: { ...(init.headers as Record<string, string>), ...bearer(adminToken) } });
    const audits = serverAudits({ url: `${door.url}/graphql`, fetchFn });
    const failed: string[] = [];
    for (const audit of audits) {
      const result = await audit.fn();
      if (result.status !== 'ok') failed.push(`${result.status} ${audit.id} ${audit.name}: ${result.reason}`);
    }
    t.diagnostic(`${audits.length - failed.length} of ${audits.length} audits pass`);
    assert.deepEqual(failed, []);
    assert.equal(audits.length, 61);
  });
});
