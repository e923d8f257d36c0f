// What a well node knows of itself, for tests of what is made of it.
import { DROP_REASONS, readFlows } from '../../lib/datapath/counters.ts';
import { FORMAT_TULLE } from '../../lib/datapath/slab.ts';
import { parseSubnetKey } from '../../lib/lease/lease.ts';
import type { StatusInput } from '../../lib/observe/status.ts';

const subnetOf = (key: string) => {
  const subnets = parseSubnetKey(key);
  if (subnets === undefined) throw new Error(key);
  return subnets.subnet;
};

/** Its counters are 1001, 1002, … in the order of the list; the drop reasons are 0 but for egress-no-lease, which is 7. */
export function statusInput(): StatusInput {
  const flows = Object.keys(readFlows(new Float64Array(1000)));
  return {
    version: '1.2.3',
    uptimeMs: 61_000,
    pid: 42,
    node: 'node1',
    cniOnly: false,
    waitingFor: undefined,
    network: { network: '10.5.0.0/16', backend: 'tulle' },
    lease: {
      lease: {
        subnet: subnetOf('10.5.1.0-24'),
        attributes: { PublicIP: '10.88.0.1', PublicIPv6: null },
        expiresAtMs: 1,
        createRevision: 255,
        modRevision: 300,
      },
      fenced: false,
      deadlineInMs: 3_000_000,
      renewedForMs: 600_000,
      trouble: undefined,
    },
    ttlSeconds: 3600,
    registry: {
      kind: 'etcd',
      where: 'etcd:/coreos.com/network',
      endpoints: ['http://10.88.0.254:2379'],
      health: { healthy: true },
    },
    overlay: {
      device: 'tulle0',
      mtu: 1460,
      port: 8285,
      running: true,
      transport: 'offload',
      underlayError: undefined,
      offloads: {
        tso: { on: true, reason: 'in-use', why: 'in use' },
        uso: { on: false, reason: 'kernel-lacks', why: 'not there' },
      },
      peers: [
        {
          peer: { subnet: subnetOf('10.5.2.0-24'), address: 0x0a580002, port: 8285, key: 254, format: FORMAT_TULLE },
          pathMtu: 1500,
        },
      ],
      drops: { ...Object.fromEntries(Object.keys(DROP_REASONS).map(name => [name, 0])), 'egress-no-lease': 7 },
      counters: Object.fromEntries(flows.map((name, i) => [name, 1001 + i])),
    },
    nodeOf: () => 'node2',
    measureOf: () => ({ rttMs: 0.5, lossPct: 5, lastHeardMs: 800, pathMtu: null, silent: false }),
    rates: undefined,
    rules: { masquerade: 'nftables', forward: 'unneeded' },
    cni: { results: new Map([['ADD 0', 3]]), running: 1, waiting: 0 },
  };
}
