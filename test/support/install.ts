// Finds the server programs that tests need, and as root on Debian installs a missing one. It
// installs the program only: no service starts, now or at the next boot.
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

export function findProgram(...names: string[]): string | undefined {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    for (const name of names) {
      if (folder && isExecutable(join(folder, name))) return join(folder, name);
    }
  }
  return undefined;
}

export function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export function canInstall(): boolean {
  return process.platform === 'linux' && process.getuid?.() === 0 && existsSync('/usr/bin/apt-get');
}

// Debian reads `policy-rc.d` to learn that an installation must not start services; the script
// removes its own file at the end. The packages of Postgres read `createcluster.d`, even when the
// file was there before them.
const script = `
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\\nexit 101\\n' > $policy
  chmod 755 $policy
fi
if [ "$1" = postgresql ]; then
  mkdir -p /etc/postgresql-common/createcluster.d
  echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/no-main.conf
fi
apt-get -q update
apt-get -q install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$1"
if [ "$1" != postgresql ]; then update-rc.d "$1" disable || true; fi
`;

/**
 * Installs a package unless `isThere`. When several test files of a run ask at once, one installs
 * and the others wait for it.
 */
export async function installProgram(debianPackage: string, isThere: () => boolean): Promise<void> {
  if (isThere()) return;
  if (!canInstall()) throw new Error(`${debianPackage} is not on this machine, and installing it needs root on Debian`);
  console.error(`installing the Debian package ${debianPackage} for the tests, once`);
  const args = ['/var/cache/apt/astraml-test.lock', '/bin/sh', '-c', script, 'install', debianPackage];
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const locked = promisify(execFile)('flock', args, { env, maxBuffer: 2 ** 26, timeout: 600_000 });
  await locked.catch((error: Error) => {
    throw new Error(`installing ${debianPackage} failed`, { cause: error });
  });
  if (!isThere()) throw new Error(`${debianPackage} was installed, and is still not found`);
}
