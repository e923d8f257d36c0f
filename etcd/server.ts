// A local etcd for the lab and the tests: started on a directory, watched until it serves, ended for certain.
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, mkdirSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { get } from 'node:http';
import { createServer } from 'node:net';
import { homedir } from 'node:os';
import { delimiter, isAbsolute, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf, TulleError } from '../lib/util/errors.ts';

export interface EtcdServerOptions {
  /** Holds the data, the log (etcd.log) and the control socket; made when missing. Another start on it finds the data again. */
  directory: string;
  clientAddress: string;
  /** Absent: a free port (2379 inside a namespace). */
  clientPort?: number;
  /** Absent: a free port (2380 inside a namespace). */
  peerPort?: number;
  /** The netns file of the namespace to run in. */
  namespace?: string;
  /** Member name, default "lab". */
  name?: string;
  /** Members of a cluster, name → peer URL; absent: this one alone. */
  cluster?: Record<string, string>;
  /** https instead of http for clients: the server's certificate. clientCaFile: clients must show one signed by it. */
  tls?: { certFile: string; keyFile: string; clientCaFile?: string };
  /** Bytes that its database may take before it refuses writes; absent: etcd's 2 GB. */
  quotaBytes?: number;
  /** Start and go on without waiting until it serves: for members that need each other. */
  dontWait?: boolean;
  /** It lives on when this process ends; absent: it dies with us, even when we are killed. */
  outlive?: boolean;
}

export interface EtcdServer {
  /** "http://127.0.0.1:2379" */
  endpoint: string;
  pid: number;
  /** Resolves when it serves; rejects with TulleError 'etcd-failed'. */
  ready(): Promise<void>;
  /** SIGTERM, and SIGKILL when that does not help (a process under SIGSTOP). Stopping twice succeeds. The data stays. */
  stop(): Promise<void>;
}

const startMs = 20_000;
const stopMs = 3_000;

/** The path of an etcd program, or undefined: PATH, the usual places, and where scripts/install-etcd.mjs puts its own. */
export function findEtcd(): string | undefined {
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  const path = (process.env['PATH'] ?? '').split(delimiter).filter(isAbsolute);
  const folders = [...path, '/usr/bin', '/usr/sbin', '/usr/local/bin', join(cache, 'tulle/etcd/usr/bin')];
  return folders.map(folder => join(folder, 'etcd')).find(isExecutable);
}

/** Throws TulleError: 'no-etcd', 'etcd-failed' (with the last line of its log). Nothing is left running then. */
export async function startEtcd(options: EtcdServerOptions): Promise<EtcdServer> {
  const program = findEtcd();
  if (program === undefined) {
    throw new TulleError('no-etcd', 'there is no etcd here: install it (Debian: apt-get install etcd-server)');
  }
  const directory = resolve(options.directory);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const { clientAddress, namespace, tls, name = 'lab' } = options;
  const clientPort = options.clientPort ?? (namespace === undefined ? await freePort(clientAddress) : 2379);
  const peerPort = options.peerPort ?? (namespace === undefined ? await freePort(clientAddress) : 2380);
  const host = clientAddress.includes(':') ? `[${clientAddress}]` : clientAddress;
  const endpoint = `${tls === undefined ? 'http' : 'https'}://${host}:${clientPort}`;
  const peer = `http://${host}:${peerPort}`;
  const cluster = Object.entries(options.cluster ?? { [name]: peer });

  // etcd takes the host of a unix URL as a file name in its working directory. Over this socket we can ask for its health
  // from any network namespace, and without a certificate.
  const control = `control:${clientPort}`;
  rmSync(join(directory, control), { force: true });
  const args = [
    `--name=${name}`,
    `--data-dir=${join(directory, 'data')}`,
    `--listen-client-urls=${endpoint},unix://${control}`,
    `--advertise-client-urls=${endpoint}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=${cluster.map(([member, url]) => `${member}=${url}`).join(',')}`,
    ...(options.quotaBytes === undefined ? [] : [`--quota-backend-bytes=${options.quotaBytes}`]),
    '--logger=zap',
    '--log-level=error',
    '--log-outputs=stderr',
  ];
  if (tls !== undefined) args.push(`--cert-file=${resolve(tls.certFile)}`, `--key-file=${resolve(tls.keyFile)}`);
  if (tls?.clientCaFile !== undefined)
    args.push('--client-cert-auth', `--trusted-ca-file=${resolve(tls.clientCaFile)}`);

  const logFile = join(directory, 'etcd.log');
  const child = await launch(program, args, directory, logFile, namespace);
  const exited = new Promise<void>(done => {
    child.once('exit', () => done());
    child.once('error', () => done());
  });
  const pid = child.pid;
  if (pid === undefined) {
    await exited;
    throw new TulleError('etcd-failed', `${program} could not be started`);
  }
  const isRunning = (): boolean => child.exitCode === null && child.signalCode === null;
  if (options.outlive) child.unref();
  else {
    const guard = startGuard(pid);
    child.once('exit', () => guard.kill('SIGKILL'));
  }

  const server: EtcdServer = {
    endpoint,
    pid,
    async ready() {
      const until = performance.now() + startMs;
      while (isRunning() && performance.now() < until) {
        if (await isHealthy(join(directory, control))) return;
        await sleep(25);
      }
      const state = isRunning() ? `does not serve after ${startMs / 1000} s` : 'ended at once';
      throw new TulleError('etcd-failed', `etcd at ${endpoint} ${state}: ${lastLine(logFile)}`);
    },
    async stop() {
      if (isRunning()) {
        child.kill('SIGTERM');
        const timer = setTimeout(() => child.kill('SIGKILL'), stopMs);
        await exited;
        clearTimeout(timer);
      }
      rmSync(join(directory, control), { force: true });
    },
  };
  if (options.dontWait) return server;
  try {
    await server.ready();
    return server;
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** A TCP port that was free a moment ago. */
export function freePort(address: string): Promise<number> {
  return new Promise((done, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, address, () => {
      const found = server.address();
      server.close(() => done(typeof found === 'object' && found !== null ? found.port : 0));
    });
  });
}

async function launch(
  program: string,
  args: string[],
  directory: string,
  logFile: string,
  namespace: string | undefined,
): Promise<ChildProcess> {
  const log = openSync(logFile, 'a', 0o600);
  const environment: NodeJS.ProcessEnv = {};
  for (const [key, value] of Object.entries(process.env)) if (!key.startsWith('ETCD_')) environment[key] = value; // they would override ours
  if (process.arch !== 'x64') environment['ETCD_UNSUPPORTED_ARCH'] = process.arch; // etcd 3.4 refuses arm64 without it
  // Its own session: the Ctrl-C that ends a lab must not end etcd before the lab has given its leases back.
  const start = (): ChildProcess =>
    spawn(program, args, { cwd: directory, env: environment, detached: true, stdio: ['ignore', log, log] });
  try {
    if (namespace === undefined) return start();
    const { withNamespace } = await import('../lib/sys/sys.ts'); // loads the addon: only for those who need it
    return withNamespace(namespace, start);
  } finally {
    closeSync(log);
  }
}

/** A shell that waits for the end of our pipe, which closes however we end, and then kills etcd. */
function startGuard(pid: number): ChildProcess {
  const guard = spawn('/bin/sh', ['-c', 'read -r _; kill -KILL "$1"', 'sh', `${pid}`], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  guard.on('error', () => {}); // without a shell etcd is still stopped by `stop`
  guard.unref();
  guard.stdin?.on('error', () => {});
  if (guard.stdin !== null && 'unref' in guard.stdin && typeof guard.stdin.unref === 'function') guard.stdin.unref();
  return guard;
}

function isHealthy(socketPath: string): Promise<boolean> {
  return new Promise(done => {
    const request = get({ socketPath, path: '/health', timeout: 1000, agent: false }, response => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', chunk => {
        text += chunk;
      });
      response.on('end', () => done(text.includes('"true"')));
      response.on('error', () => done(false));
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => done(false));
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile(); // a folder may be "executable" too
  } catch {
    return false;
  }
}

/** What etcd said last, shortened: one clear line. */
function lastLine(path: string): string {
  try {
    const line = readFileSync(path, 'utf8').trim().split('\n').at(-1) ?? '';
    return (
      /"error":"([^"]+)"/.exec(line)?.[1] ?? /"msg":"([^"]+)"/.exec(line)?.[1] ?? (line.slice(0, 300) || `see ${path}`)
    );
  } catch (error) {
    return codeOf(error) ?? `see ${path}`;
  }
}
