// An etcd server for the lab and the tests: found, or fetched from Debian's archive.
//
// Fetched, not installed: `apt-get download` and `dpkg-deb --extract` put the one program that is needed into the user's
// cache folder. Installing the package would also make a user and a service that starts at every boot, on a machine that
// only wanted to run a test. It needs no root, unless the package lists are missing and must be updated first.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { delimiter, isAbsolute, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const say = text => process.stderr.write(`tulle: ${text}\n`);
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'tulle'); // as findEtcd in etcd/server.ts

/** The path of an etcd program, or undefined. The same places as findEtcd in etcd/server.ts. */
function findEtcd() {
  const path = (process.env.PATH ?? '').split(delimiter).filter(isAbsolute);
  const folders = [...path, '/usr/bin', '/usr/sbin', '/usr/local/bin'];
  return [...folders, join(cache, 'etcd/usr/bin')].map(folder => join(folder, 'etcd')).find(runs);
}

function runs(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function run(command, args, cwd) {
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return spawnSync(command, args, { cwd, env: environment, stdio: ['ignore', 'ignore', 'pipe'] }).status === 0;
}

/** Finds etcd, or fetches it; the path of the program, or undefined with the reason on stderr. */
export function ensureEtcd() {
  const found = findEtcd();
  if (found !== undefined) return found;
  if (!run('apt-get', ['--version']) || !run('dpkg-deb', ['--version'])) {
    say('no etcd here, and no apt-get to fetch it with: install etcd 3.4 or newer');
    return undefined;
  }
  say("no etcd here: fetching Debian's etcd-server with apt-get (once, 8 MB)");
  const folder = mkdtempSync(join(tmpdir(), 'tulle-etcd-'));
  try {
    const download = () => run('apt-get', ['-qq', '-o', 'APT::Sandbox::User=root', 'download', 'etcd-server'], folder);
    if (!download()) {
      if (process.getuid?.() === 0) {
        say('updating the package lists first');
        run('apt-get', ['-qq', 'update'], folder);
      }
      if (!download()) {
        say('apt-get could not fetch etcd-server: is the package archive within reach? (as root: apt-get update)');
        return undefined;
      }
    }
    const archive = readdirSync(folder).find(name => name.endsWith('.deb'));
    if (archive === undefined || !run('dpkg-deb', ['--extract', archive, 'etcd'], folder)) {
      say('the package of etcd-server could not be unpacked');
      return undefined;
    }
    mkdirSync(cache, { recursive: true });
    rmSync(join(cache, 'etcd'), { recursive: true, force: true });
    move(join(folder, 'etcd'), join(cache, 'etcd'));
    const fetched = findEtcd();
    if (fetched === undefined) say('the package of etcd-server holds no etcd program');
    return fetched;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Across file systems too. */
function move(from, to) {
  try {
    renameSync(from, to);
  } catch {
    run('cp', ['-a', from, to]);
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const path = ensureEtcd();
  if (path === undefined) process.exitCode = 1;
  else console.log(path);
}
