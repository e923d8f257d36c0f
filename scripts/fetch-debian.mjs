// Programs of Debian packages, without installing them: what the tests, the lab and the bench compare with or need.
//
// Fetched, not installed: `apt-get download` and `dpkg-deb --extract` put the files into the user's cache folder. Installing a
// package would also make users and services that start at every boot, on a machine that only wanted to run a test. Of the
// libraries that the program needs only the missing ones are fetched, into the same folder. It needs no root, unless the
// package lists are missing and must be updated first.
//
//   node scripts/fetch-debian.mjs fastd            prints the path of the program "fastd" of the package "fastd"
//   node scripts/fetch-debian.mjs etcd-server etcd
import { spawnSync } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, isAbsolute, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { aptGet } from './apt.mjs';

const say = text => process.stderr.write(`tulle: ${text}\n`);
const ARCHIVE_MS = 60_000;
/** How the name of a fetch's folder begins. */
const WORK = '.fetch-';
const LEFT_OVER_MS = 24 * 3600 * 1000;
// Of Chromium, usr/bin holds a script that looks for the program in its installed place.
const DIRECTORIES = ['usr/lib/chromium', 'usr/bin', 'usr/sbin', 'bin', 'sbin', 'usr/lib/cni'];
/** A library whose library's library … is missing: nothing we fetch is deeper. */
const DEPTH = 6;

/** The folder of everything fetched; each package has one of its own in it. */
export const cacheFolder = () => join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'tulle');

/** The path of a program that is installed, or undefined. */
export function findInstalled(program) {
  const path = (process.env.PATH ?? '').split(delimiter).filter(isAbsolute);
  const folders = [
    ...path,
    '/usr/local/sbin',
    '/usr/local/bin',
    '/usr/sbin',
    '/usr/bin',
    '/sbin',
    '/bin',
    '/usr/lib/cni',
  ];
  return folders.map(folder => join(folder, program)).find(runs);
}

/** The path of a program that was fetched earlier, or undefined. */
export function findFetched(program, folder) {
  return DIRECTORIES.map(directory => join(cacheFolder(), folder, directory, program)).find(runs);
}

/**
 * A program of a Debian package: installed here, fetched earlier, or fetched now.
 *
 * `package` is the package's name, `program` the file's (default: the same), `folder` its place in the cache (default: the
 * package's name), `also` packages whose files it needs beside its libraries, `limitMs` how long the archive may take,
 * `fetch: false` only looks.
 * Returns `{ path, environment }`, where `environment` holds what the program needs to find fetched libraries, or
 * `{ reason }`, one line that says why it is not to be had.
 */
export function fetchDebian({
  package: name,
  program = name,
  folder = name,
  also = [],
  limitMs = ARCHIVE_MS,
  fetch = true,
}) {
  const installed = findInstalled(program);
  if (installed !== undefined) return { path: installed, environment: {} };
  const earlier = findFetched(program, folder);
  if (earlier !== undefined) return { path: earlier, environment: libraryPath(folder) };
  if (!fetch) return { reason: `${program} is not installed` };
  if (!run('apt-get', ['--version']).ok || !run('dpkg-deb', ['--version']).ok) {
    return { reason: `no ${program} here, and no apt-get to fetch it with: install ${name}` };
  }
  say(`no ${program} here: fetching Debian's ${name} with apt-get (once)`);
  mkdirSync(cacheFolder(), { recursive: true });
  removeLeftovers();
  const work = mkdtempSync(join(cacheFolder(), WORK)); // on the same file system, so that the last step is a rename
  const endsAt = performance.now() + limitMs;
  try {
    const reason = unpackAll([name, ...also], program, work, endsAt);
    if (reason !== undefined) return { reason };
    // Another process may have fetched it meanwhile and run it now: then ours is one too many.
    if (findFetched(program, folder) === undefined) {
      relink(join(work, 'root'));
      rmSync(join(cacheFolder(), folder), { recursive: true, force: true });
      replace(join(work, 'root'), join(cacheFolder(), folder));
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const path = findFetched(program, folder);
  if (path === undefined) return { reason: `the package ${name} holds no program ${program}` };
  return { path, environment: libraryPath(folder) };
}

/** What a fetch that was killed has left. One that still runs is minutes old. */
function removeLeftovers() {
  for (const name of listFolders(cacheFolder()).filter(each => each.startsWith(WORK))) {
    const folder = join(cacheFolder(), name);
    const changed = statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - changed > LEFT_OVER_MS) rmSync(folder, { recursive: true, force: true });
  }
}

/** The packages and the libraries that the program misses, unpacked in `work`/root; undefined, or the reason why not. */
function unpackAll(names, program, work, endsAt) {
  const root = join(work, 'root');
  const fetched = new Set();
  let wanted = names;
  let missing = [];
  for (let depth = 0; depth < DEPTH && wanted.length > 0; depth++) {
    const folder = join(work, `debs${depth}`);
    mkdirSync(folder);
    if (!download(wanted, folder, endsAt)) {
      return `apt-get could not fetch ${wanted.join(', ')}: is the package archive within reach? (as root: apt-get update)`;
    }
    const archives = readdirSync(folder).filter(file => file.endsWith('.deb'));
    for (const archive of archives) {
      if (!run('dpkg-deb', ['--extract', join(folder, archive), root]).ok) return `${archive} could not be unpacked`;
    }
    for (const each of wanted) fetched.add(each);
    const path = DIRECTORIES.map(directory => join(root, directory, program)).find(runs);
    missing = path === undefined ? [] : missingLibraries(path, root);
    if (missing.length === 0) return undefined;
    const depends = archives.flatMap(archive => libraryPackages(join(folder, archive)));
    wanted = [...new Set(depends)].filter(each => !fetched.has(each) && !isInstalled(each));
  }
  return `${program} misses ${missing.join(', ')}`;
}

function download(names, folder, endsAt) {
  const apt = (...args) =>
    aptGet(['-o', 'APT::Sandbox::User=root', ...args], { cwd: folder, waitUntil: endsAt, endsAt }).ok;
  if (apt('download', ...names)) return true;
  if (process.getuid?.() !== 0 || performance.now() >= endsAt) return false;
  say('updating the package lists first');
  apt('update');
  return apt('download', ...names);
}

/** The packages of libraries that an archive depends on; of alternatives, the first. */
function libraryPackages(archive) {
  const { output } = run('dpkg-deb', ['--field', archive, 'Depends', 'Pre-Depends']);
  return output
    .replace(/^(Pre-)?Depends:/gm, ',')
    .split(',')
    .map(
      entry =>
        entry
          .split('|')[0]
          .trim()
          .split(/[\s(:]/)[0],
    )
    .filter(each => each.startsWith('lib'));
}

/** Absolute links between files of the packages lead to where an installed package has them: let them lead to ours. */
function relink(root) {
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isSymbolicLink()) continue;
    const link = join(entry.parentPath ?? entry.path, entry.name);
    const target = readlinkSync(link);
    if (!isAbsolute(target) || !existsSync(join(root, target))) continue;
    rmSync(link);
    symlinkSync(relative(dirname(link), join(root, target)), link);
  }
}

function isInstalled(name) {
  return run('dpkg-query', ['--status', name]).output.includes('\nStatus: install ok installed\n');
}

function missingLibraries(program, root) {
  const environment = { LD_LIBRARY_PATH: libraryFolders(root).join(':') };
  const { output } = run('ldd', [program], undefined, undefined, environment);
  return [...output.matchAll(/^\s*(\S+) => not found/gm)].map(match => match[1]);
}

/** usr/lib/TRIPLET and its like below `root`, and folders in them that only a library of theirs knows (pulseaudio's). */
function libraryFolders(root) {
  const inside = folder => listFolders(folder).map(each => join(folder, each));
  return ['usr/lib', 'lib']
    .map(folder => join(root, folder))
    .flatMap(folder => {
      const triplets = inside(folder).filter(each => each.includes('-linux-'));
      return [folder, ...triplets, ...triplets.flatMap(inside)];
    })
    .filter(folder => listFiles(folder).some(file => file.includes('.so')));
}

const list = folder => {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    return [];
  }
};
const listFolders = folder =>
  list(folder)
    .filter(entry => entry.isDirectory())
    .map(entry => entry.name);
const listFiles = folder => list(folder).map(entry => entry.name);

function libraryPath(folder) {
  const folders = libraryFolders(join(cacheFolder(), folder));
  return folders.length === 0 ? {} : { LD_LIBRARY_PATH: folders.join(':') };
}

function runs(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function run(command, args, cwd, endsAt = performance.now() + ARCHIVE_MS, more = {}) {
  const { status, stdout } = spawnSync(command, args, {
    cwd,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C', ...more },
    stdio: ['ignore', 'pipe', 'ignore'],
    encoding: 'utf8',
    timeout: Math.max(1, Math.ceil(endsAt - performance.now())),
  });
  return { ok: status === 0, output: stdout ?? '' };
}

function replace(from, to) {
  try {
    renameSync(from, to);
  } catch (error) {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error; // these: it came in this very moment
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [name, program = name] = process.argv.slice(2);
  if (name === undefined) {
    say('usage: node scripts/fetch-debian.mjs PACKAGE [PROGRAM]');
    process.exit(1);
  }
  const found = fetchDebian({ package: name, program });
  if (found.path === undefined) {
    say(found.reason);
    process.exitCode = 1;
  } else {
    for (const [key, value] of Object.entries(found.environment)) say(`${key}=${value}`);
    console.log(found.path);
  }
}
