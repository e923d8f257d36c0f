/** Looks at a running lab: what its nodes and pods really have, for the picture and for the JSON line. */
import { readSubnetEnv } from '../lease/subnet-env.ts';
import { withRtnetlink } from '../netlink/netlink.ts';
import { TulleError } from '../util/errors.ts';
import { formatAddress4 } from '../wire/ip4.ts';
import type { PodNetwork } from './build.ts';
import type { Daemon } from './cluster.ts';
import type { LeaseFacts } from './leases.ts';
import type { NodeFacts } from './picture.ts';
import { OVERLAY, POD_BRIDGE } from './plan.ts';
import { type LabState, namespaceFile } from './state.ts';

/** What subnet.env tells the pods of a node. */
export function readPodNetwork(subnetFile: string): PodNetwork {
  const env = readSubnetEnv(subnetFile);
  const subnet = env?.subnets[0];
  if (subnet === undefined || env?.mtu === undefined) {
    throw new TulleError('daemon', `${subnetFile} has no FLANNEL_SUBNET or no FLANNEL_MTU`);
  }
  return { gateway: formatAddress4(subnet.address + 1), prefixLength: subnet.prefixLength, mtu: env.mtu };
}

export function readNode(state: LabState, daemon: Daemon, leases: readonly LeaseFacts[], now = Date.now()): NodeFacts {
  const { name, address } = daemon.node;
  const lease = leases.find(candidate => candidate.publicIp === address);
  if (lease === undefined) throw new TulleError('daemon', `${name} has no lease in the registry`);
  return withRtnetlink(namespaceFile(state, name), netlink => {
    const links = netlink.links();
    const tun = links.find(link => link.kind === 'tun');
    const eth0 = links.find(link => link.name === 'eth0');
    const bridge = links.find(link => link.name === POD_BRIDGE);
    if (tun === undefined) throw new TulleError('daemon', `${name} has no TUN device`);
    const addressOf = (link: string): string => {
      const [found] = netlink.addresses({ link, family: 4 });
      return found === undefined ? 'no address' : `${found.address}/${found.prefixLength}`;
    };
    return {
      name,
      address,
      underlayMtu: eth0?.mtu ?? 0,
      subnet: lease.subnet,
      leaseKey: lease.key,
      leaseSeconds: lease.expiresAtMs === null ? null : (lease.expiresAtMs - now) / 1000,
      device: { name: tun.name, address: addressOf(tun.name), mtu: tun.mtu },
      bridge: { name: POD_BRIDGE, address: addressOf(POD_BRIDGE), mtu: bridge?.mtu ?? 0 },
      port: OVERLAY.port,
      pid: daemon.process.pid ?? 0,
    };
  });
}
