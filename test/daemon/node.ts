// A node's namespace for tests of tulled, with a neighbour:
//
//   namespace "node"                              namespace "far"
//   tulled, tulle0, eth0 10.88.0.1/24 ──veth── eth0 10.88.0.2/24
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';
import { spawnTulled, type Tulled } from './process.ts';

/** What these tests need, for tap's `skip`. */
export const skip = process.getuid?.() === 0 && existsSync('/dev/net/tun') ? false : 'needs root and /dev/net/tun';

/** All of it is gone when the test ends. */
export function makeNode(t: Test, conf = '{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}') {
  const directory = t.testdir({ leases: { config: conf } });
  const run = `/run/tulle-test-daemon-${process.pid}`;
  mkdirSync(run, { recursive: true });
  const [node, far] = [join(run, 'node'), join(run, 'far')];
  const running = new Set<Tulled>();
  t.teardown(async () => {
    await Promise.all([...running].map(tulled => tulled.end('SIGKILL')));
    removeNamespace(node);
    removeNamespace(far);
    rmSync(run, { recursive: true, force: true });
  });
  makeNamespace(node);
  makeNamespace(far);
  withRtnetlink(node, netlink => {
    netlink.createVeth({ name: 'eth0', peerName: 'eth0', peerNamespace: far });
    netlink.addAddress('eth0', '10.88.0.1/24');
    netlink.setLink('eth0', { up: true });
  });
  withRtnetlink(far, netlink => {
    netlink.addAddress('eth0', '10.88.0.2/24');
    netlink.setLink('eth0', { up: true });
  });
  const subnetFile = join(directory, 'run/subnet.env');
  const base = ['-iface=eth0', `-subnet-file=${subnetFile}`, '--cni-socket='];
  return {
    node,
    far,
    /** A folder with a short path, for sockets. */
    run,
    registry: join(directory, 'leases'),
    subnetFile,
    /** With the file registry unless `args` name another. */
    start(...args: string[]): Tulled {
      return this.startWith({}, ...args);
    },
    /** With more in its environment. */
    startWith(more: Record<string, string>, ...args: string[]): Tulled {
      const registry = args.some(arg => arg.startsWith('-etcd')) ? [] : [`--registry=file:${directory}/leases`];
      const tulled = withNamespace(node, () => spawnTulled([...base, ...registry, ...args], more));
      running.add(tulled);
      tulled.child.on('exit', () => running.delete(tulled));
      return tulled;
    },
    /** The neighbour's own, with the same registry. */
    startFar(...args: string[]): Tulled {
      const own = [`-iface=eth0`, `-subnet-file=${join(directory, 'run/far.env')}`, '--cni-socket='];
      const registry = `--registry=file:${directory}/leases`;
      const tulled = withNamespace(far, () => spawnTulled([...own, registry, ...args]));
      running.add(tulled);
      tulled.child.on('exit', () => running.delete(tulled));
      return tulled;
    },
    links: () => withRtnetlink(node, netlink => netlink.links().map(link => link.name)).sort(),
    leases: () => readdirSync(join(directory, 'leases/subnets')),
    lease: (name: string) => JSON.parse(readFileSync(join(directory, 'leases/subnets', name), 'utf8')),
  };
}
