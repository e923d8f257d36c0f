/**
 * The rules as text. Their order is flannel's (pkg/trafficmngr), and it matters: NAT asks for the first rule that fits.
 *
 *   NET the whole pod network, SUBNET this node's part of it, ALL the multicast range
 *
 *   1  mark 0x4000             return       kube-proxy marked it and masquerades it itself
 *   2  SUBNET  -> NET          return       a pod here to any pod: the pod's own address
 *   3  NET     -> SUBNET       return       any pod to a pod here
 *   4  not NET -> SUBNET       return       from outside to a pod here: the pod sees who asks
 *   5  NET     -> not ALL      masquerade   a pod to the outside
 *   6  not NET -> NET          masquerade   from outside by way of this node to another node's pod: the answer must come back here
 *
 * In flannel's nftables rule 4 reads "not SUBNET -> NET", which leaves nothing for rule 6, and rule 1 compares the whole
 * mark, so that a packet with any other bit set as well was masqueraded twice over. Here both tools say the same.
 */
import type { Subnet4 } from '../../wire/cidr.ts';
import { formatCidr4 } from '../../wire/cidr.ts';

export interface TrafficPlan {
  network: Subnet4;
  subnet: Subnet4;
  /** Masquerade from random ports, so that two connections seldom fight for one (the kernel's "fully random"). */
  randomFully: boolean;
}

/** The bit by which kube-proxy marks what it masquerades (its --iptables-masquerade-bit, 14). */
const MARK = '0x4000';
const MULTICAST = '224.0.0.0/4';

/** Several networks on one machine do not meet in one chain: each has its own, named by the network. */
export function nftTableName(network: Subnet4): string {
  return `tulle-${formatCidr4(network).replace('/', '-')}`;
}

/** "TULLE-NAT-255.255.255.255-32" has 28 characters: the longest that iptables takes (XT_EXTENSION_MAXNAMELEN less the zero). */
export function chainName(kind: 'NAT' | 'FWD', network: Subnet4): string {
  return `TULLE-${kind}-${formatCidr4(network).replace('/', '-')}`;
}

/** The table with the masquerade. nft replaces a table as a whole in one transaction: made if missing, deleted, made. */
export function nftScript(plan: TrafficPlan): string {
  const table = nftTableName(plan.network);
  const [network, subnet] = [formatCidr4(plan.network), formatCidr4(plan.subnet)];
  const masquerade = `masquerade${plan.randomFully ? ' fully-random' : ''}`;
  return `add table ip ${table}
delete table ip ${table}
table ip ${table} {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & ${MARK} == ${MARK} return
    ip saddr ${subnet} ip daddr ${network} return
    ip saddr ${network} ip daddr ${subnet} return
    ip saddr != ${network} ip daddr ${subnet} return
    ip saddr ${network} ip daddr != ${MULTICAST} ${masquerade}
    ip saddr != ${network} ip daddr ${network} ${masquerade}
  }
}
`;
}

/** Rules of iptables without "-A CHAIN", as iptables-restore takes them and iptables-save prints them. */
export function iptablesMasquerade(plan: TrafficPlan): string[] {
  const [network, subnet] = [formatCidr4(plan.network), formatCidr4(plan.subnet)];
  const comment = '-m comment --comment "tulle masquerade"';
  const masquerade = `-j MASQUERADE${plan.randomFully ? ' --random-fully' : ''}`;
  return [
    `-m mark --mark ${MARK}/${MARK} ${comment} -j RETURN`,
    `-s ${subnet} -d ${network} ${comment} -j RETURN`,
    `-s ${network} -d ${subnet} ${comment} -j RETURN`,
    `! -s ${network} -d ${subnet} ${comment} -j RETURN`,
    `-s ${network} ! -d ${MULTICAST} ${comment} ${masquerade}`,
    `! -s ${network} -d ${network} ${comment} ${masquerade}`,
  ];
}

export function iptablesForward({ network }: Pick<TrafficPlan, 'network'>): string[] {
  const text = formatCidr4(network);
  const comment = '-m comment --comment "tulle forward"';
  return [`-s ${text} ${comment} -j ACCEPT`, `-d ${text} ${comment} -j ACCEPT`];
}
