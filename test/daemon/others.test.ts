// Another daemon that shows itself while ours runs: told from our own writes and from what we replaced at the start.
import t from 'tap';
import type { DaemonNetwork } from '../../lib/daemon/network.ts';
import { noticeOthers } from '../../lib/daemon/others.ts';
import type { Run } from '../../lib/daemon/run.ts';
import type { Lease } from '../../lib/lease/lease.ts';
import { TulleError } from '../../lib/util/errors.ts';
import { cidr } from '../support/node.ts';

const lease = (subnet: string, backend: string | undefined, modRevision: number): Lease => ({
  subnet: cidr(subnet),
  attributes: { PublicIP: '10.88.0.1', PublicIPv6: null, ...(backend !== undefined && { BackendType: backend }) },
  expiresAtMs: null,
  createRevision: 1,
  modRevision,
});

t.test('flannel is started beside us', async t => {
  const lines: string[] = [];
  const looks: unknown[][] = [];
  let wake = (): void => {};
  let problem: Error | undefined = new TulleError('other-overlay', 'flannel.1 has the address 10.42.1.0');
  const run = {
    parts: {
      clock: { sleep: () => new Promise<void>(resolve => (wake = resolve)) },
      refuseOtherOverlay: (...given: unknown[]) => {
        looks.push(given);
        if (problem !== undefined) throw problem;
        return [];
      },
    },
    registry: { thisNode: () => ({ name: 'node1', subnets: { subnet: cidr('10.42.1.0/24') } }) },
    manager: { lease: lease('10.42.1.0/24', 'tulle', 5) },
    overlay: { device: 'tulle0' },
    log: { error: (fields: object, text: string) => lines.push([text, ...Object.values(fields)].join(' ')) },
  } as unknown as Run;
  const network = { config: { network: cidr('10.42.0.0/16') } } as DaemonNetwork;
  const stop = new AbortController();
  const notice = noticeOthers(run, network, stop.signal);
  const see = (...leases: Lease[]): void => notice({ kind: 'snapshot', leases, revision: 9 });

  see(lease('10.42.1.0/24', 'vxlan', 4), lease('10.42.2.0/24', 'vxlan', 8));
  see(lease('10.42.1.0/24', 'tulle', 6));
  t.same(lines, [], 'what we replaced, other nodes, and our own writes are nothing');
  see(lease('10.42.1.0/24', 'vxlan', 7));
  see(lease('10.42.1.0/24', 'vxlan', 8));
  t.match(lines, [/another daemon writes this node's annotations.*kubectl -n kube-flannel delete daemonset.*vxlan/]);
  wake();
  await new Promise(resolve => setImmediate(resolve));
  t.match(looks, [[[{ network: cidr('10.42.0.0/16'), own: cidr('10.42.1.0/24') }], 'tulle0']]);
  t.match(lines, [String, /two overlays carry packets.*flannel\.1 has the address/]);

  problem = undefined;
  see(lease('10.42.1.0/24', undefined, 9));
  t.match(lines, [String, String, /udp$/], 'each time anew');
  wake();
  await new Promise(resolve => setImmediate(resolve));
  t.equal(looks.length, 2);
  t.equal(lines.length, 3, 'it left nothing');
});

t.test("where the registry does not know the nodes, a rival is the lease manager's", async t => {
  const run = { registry: {}, manager: { lease: lease('10.42.1.0/24', 'tulle', 5) } } as unknown as Run;
  const notice = noticeOthers(run, {} as DaemonNetwork, new AbortController().signal);
  t.doesNotThrow(() => notice({ kind: 'snapshot', leases: [lease('10.42.1.0/24', 'vxlan', 7)], revision: 9 }));
});
