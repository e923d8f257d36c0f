// A real etcd on loopback for the tests of this room, and a raw client beside ours to look at what was written.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Etcd3 } from 'etcd3';
import t, { type Test } from 'tap';
import { type EtcdRegistryOptions, openEtcdRegistry } from '../../etcd/registry.ts';
import { type EtcdServer, type EtcdServerOptions, findEtcd, startEtcd } from '../../etcd/server.ts';
import type { Lease, LeaseAttributes } from '../../lib/lease/lease.ts';
import { parseSubnetKey } from '../../lib/lease/lease.ts';
import type { Events, NewLease, Registry, Snapshot } from '../../lib/lease/registry.ts';
import { messageOf } from '../../lib/util/errors.ts';
import { silentLogger } from '../../lib/util/log.ts';

export const { Etcd3: RawEtcd } = createRequire(import.meta.url)('etcd3') as typeof import('etcd3');

type Scenario = (t: Test) => Promise<void>;
const scenarios: [string, Scenario][] = [];

/** A test that mostly waits, on an etcd of its own: see `runSlow`. */
export function slow(name: string, scenario: Scenario): void {
  scenarios.push([name, scenario]);
}

/**
 * Runs the slow tests of this file, several at a time, as one test of tap's. (tap's own `jobs` shows the results of one
 * test as those of others when they end in another order than they began.)
 */
export function runSlow(atOnce = 10): void {
  t.test('side by side', async t => {
    const next = scenarios.values();
    const worker = async (): Promise<void> => {
      for (const [name, scenario] of next) {
        const start = performance.now();
        try {
          await scenario(t);
          t.pass(`${name}: ended after ${((performance.now() - start) / 1000).toFixed(1)} s`);
        } catch (error) {
          t.fail(`${name}: ${messageOf(error)}`, error instanceof Error ? { stack: error.stack ?? '' } : {});
        }
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
  });
}

/** Skips the whole file, loudly, when there is no etcd and none can be fetched. */
export function requireEtcd(): void {
  t.setTimeout(180_000); // outages take their time
  if (findEtcd() !== undefined) return;
  // The script sits at the root, above the folder that this was compiled into.
  for (const up of ['../../..', '../../../..']) {
    const script = fileURLToPath(new URL(`${up}/scripts/install-etcd.mjs`, import.meta.url));
    if (spawnSync(process.execPath, [script], { stdio: ['ignore', 'ignore', 'inherit'] }).status === 0) return;
  }
  console.error('SKIPPED: no etcd server here and none could be fetched: the etcd registry is NOT tested');
  t.plan(0, 'no etcd server');
  process.exit(0);
}

export interface Bench {
  directory: string;
  server: EtcdServer;
  options: EtcdServerOptions;
  raw: Etcd3;
  registry(more?: Partial<EtcdRegistryOptions>): Registry;
  /** Starts the server again on the same ports and data. */
  restart(): Promise<void>;
}

const picked = new Set<number>();

/**
 * A port that is free, and that stays so while its server is away: below the kernel's ephemeral ports (32768 and above),
 * from which any connection of this machine may take its own.
 */
export async function pickPort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (picked.has(port)) continue;
    picked.add(port);
    const server = createServer();
    const isFree = await new Promise<boolean>(done => {
      server.once('error', () => done(false));
      server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
    });
    if (isFree) return port;
  }
}

/** An etcd of this test alone; everything is gone when the test ends. */
export async function bench(t: Test, more: Partial<EtcdServerOptions> = {}): Promise<Bench> {
  const directory = mkdtempSync(join(tmpdir(), `tulle-etcd-test-${process.pid}-`));
  const options: EtcdServerOptions = { directory, clientAddress: '127.0.0.1', ...more };
  const start = async (attempts: number): Promise<EtcdServer> => {
    Object.assign(options, { clientPort: await pickPort(), peerPort: await pickPort() });
    try {
      return await startEtcd(options);
    } catch (error) {
      // Another process of this machine picked the same port.
      if (attempts === 1 || !messageOf(error).includes('address already in use')) throw error;
      return start(attempts - 1);
    }
  };
  const made: Bench = {
    directory,
    options,
    server: await start(5),
    raw: undefined as unknown as Etcd3,
    registry(changes) {
      const registry = openEtcdRegistry({ endpoints: [made.server.endpoint], log: silentLogger, ...changes });
      t.teardown(() => registry.close());
      return registry;
    },
    async restart() {
      made.server = await startEtcd(options);
    },
  };
  if (more.tls === undefined) {
    made.raw = new RawEtcd({ hosts: made.server.endpoint });
    t.teardown(() => made.raw.close());
  }
  t.teardown(async () => {
    await made.server.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  return made;
}

export const udpAttributes: LeaseAttributes = { PublicIP: '10.88.0.1', PublicIPv6: null };

export function newLease(key: string, attributes: LeaseAttributes = udpAttributes): NewLease {
  const subnets = parseSubnetKey(key);
  if (subnets === undefined) throw new Error(`no subnet key: ${key}`);
  return { ...subnets, attributes };
}

/** Polls until the condition holds. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 20_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(20);
  }
}

/** A watch that is consumed in the background: what a peer of the registry would know. */
export interface Follower {
  messages: (Snapshot | Events)[];
  /** Subnet key → PublicIP, as the messages say. */
  view: Map<string, string>;
  snapshots(): number;
  stop(): Promise<void>;
}

export function follow(
  t: Test,
  registry: Registry,
  keyOf: (lease: Pick<Lease, 'subnet' | 'subnet6'>) => string,
): Follower {
  const stopper = new AbortController();
  const follower: Follower = {
    messages: [],
    view: new Map(),
    snapshots: () => follower.messages.filter(message => message.kind === 'snapshot').length,
    async stop() {
      stopper.abort();
      await done;
    },
  };
  const done = (async () => {
    for await (const message of registry.watch(stopper.signal)) {
      follower.messages.push(message);
      if (message.kind === 'snapshot') {
        follower.view.clear();
        for (const lease of message.leases) follower.view.set(keyOf(lease), lease.attributes.PublicIP);
      } else {
        for (const event of message.events) {
          if (event.kind === 'put') follower.view.set(keyOf(event.lease), event.lease.attributes.PublicIP);
          else follower.view.delete(keyOf(event));
        }
      }
    }
  })();
  t.teardown(() => follower.stop());
  return follower;
}
