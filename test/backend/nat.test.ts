/**
 * What comes out of the TUN coalesced, its checksum partial, goes on through conntrack and masquerade to a pod whose veth
 * has no offloads: the kernel must cut it and finish every checksum, and nothing may be damaged on the way.
 *
 *   pod1 10.42.1.2 ── node1 ══ overlay ══ node2 ── conntrack, masquerade ── pod2 10.42.2.2 (no offloads)
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { findProgram } from '../../bench/programs.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';
import { leaseOf, twoNodes } from '../support/overlays.ts';
import { makePod, transfer } from '../support/pods.ts';

const BYTES = 24 << 20;
const LIMIT_MS = 60_000;
const OFF = ['rx', 'off', 'tx', 'off', 'sg', 'off', 'tso', 'off', 'gso', 'off', 'gro', 'off'];
const RULES = `
table ip nat {
  chain out {
    type nat hook postrouting priority srcnat
    oifname "pod0" counter masquerade
  }
}
table ip watch {
  chain pass {
    type filter hook forward priority filter
    ct state invalid counter drop
  }
}
`;

const isRoot = process.getuid?.() === 0;
const [nft, ethtool] = isRoot
  ? await Promise.all([
      findProgram({ package: 'nftables', program: 'nft' }, { limitMs: LIMIT_MS, fetch: true }),
      findProgram({ package: 'ethtool', program: 'ethtool' }, { limitMs: LIMIT_MS, fetch: true }),
    ])
  : ['needs root', 'needs root'];
const missing = [nft, ethtool].find(found => typeof found === 'string');
const skip = typeof missing === 'string' ? missing : false;

/** Runs a program of Debian's in a namespace; its output. */
function run(namespace: string, program: typeof nft, args: string[], input = ''): string {
  if (typeof program === 'string') throw new Error(program);
  const env = { ...process.env, ...program.environment };
  const { status, stdout, stderr } = withNamespace(namespace, () =>
    spawnSync(program.path, args, { encoding: 'utf8', input, env, timeout: 10_000 }),
  );
  if (status !== 0) throw new Error(`${program.path} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** A counter of /proc/net/snmp in a namespace. */
function snmp(namespace: string, protocol: string, name: string): number {
  // The calling thread's own view, which `self` (the process's main thread) need not be.
  const text = withNamespace(namespace, () => readFileSync('/proc/thread-self/net/snmp', 'utf8'));
  const [names, values] = text.split('\n').filter(line => line.startsWith(`${protocol}: `));
  return Number(values.split(' ')[names.split(' ').indexOf(name)]);
}

/** How many packets each `counter` of the ruleset has seen: masqueraded connections, invalid packets. */
const counters = (namespace: string): number[] =>
  [...run(namespace, nft, ['list', 'ruleset']).matchAll(/counter packets (\d+)/g)].map(match => Number(match[1]));

for (const type of ['tulle', 'udp'] as const) {
  t.test(`${type}: through conntrack and masquerade to a pod without offloads`, { skip }, async t => {
    const nodes = twoNodes();
    const pods = [1, 2].map(k => join(dirname(nodes.namespaces[0]), `pod${k}`));
    t.teardown(() => {
      for (const pod of pods) removeNamespace(pod);
      nodes.remove();
    });
    const backend = { type, port: 8285 };
    const [one, two] = [await nodes.start(1, { backend }), await nodes.start(2, { backend })];
    t.teardown(() => Promise.all([one.stop(), two.stop()]));
    one.apply([{ kind: 'add', lease: leaseOf(2, type) }]);
    two.apply([{ kind: 'add', lease: leaseOf(1, type) }]);
    pods.forEach((path, i) => {
      const addresses = [{ pod: `10.42.${i + 1}.2/24`, node: `10.42.${i + 1}.1/24` }];
      makePod({ node: nodes.namespaces[i], path, addresses, mtu: one.mtu });
    });
    run(nodes.namespaces[1], ethtool, ['-K', 'pod0', ...OFF]);
    run(pods[1], ethtool, ['-K', 'eth0', ...OFF]);
    run(nodes.namespaces[1], nft, ['-f', '-'], RULES);

    t.equal(await transfer(pods[0], pods[1], '10.42.2.2', BYTES), 'whole', 'to the pod');
    t.ok(two.counters()['ingress-super-packets'] > 0, 'what was written to the TUN was coalesced');
    t.equal(await transfer(pods[1], pods[0], '10.42.1.2', BYTES), 'whole', 'and from it');
    const [masqueraded, invalid] = counters(nodes.namespaces[1]);
    t.ok(masqueraded > 0, 'the connections were masqueraded');
    t.equal(invalid, 0, 'conntrack found no fault');
    for (const pod of pods) t.equal(snmp(pod, 'Tcp', 'InCsumErrors'), 0, 'no checksum was wrong');
    const drops = { ...two.drops() };
    delete drops['egress-link-local']; // the kernel's own IPv6 multicast
    delete drops['egress-not-ipv4'];
    t.same(
      Object.entries(drops).filter(([, count]) => count > 0),
      [],
      'nothing was discarded',
    );
  });
}
