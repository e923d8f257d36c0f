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
import { createHash } from 'node:crypto';

/** What is masqueraded and accepted in one family. CIDRs as text, without host bits. */
export interface TrafficPlan {
  family: 4 | 6;
  network: string;
  subnet: string;
  /** Masquerade from random ports, so that two connections seldom fight for one (the kernel's "fully random"). */
  randomFully: boolean;
}

/** The bit by which kube-proxy marks what it masquerades (its --iptables-masquerade-bit, 14). */
const MARK = '0x4000';
const MULTICAST = { 4: '224.0.0.0/4', 6: 'ff00::/8' } as const;
/** XT_EXTENSION_MAXNAMELEN less the zero; "TULLE-NAT-255.255.255.255-32" has as many. */
const LONGEST_CHAIN = 28;

export const nftFamily = (family: 4 | 6): 'ip' | 'ip6' => (family === 4 ? 'ip' : 'ip6');

/** A network as a part of names: "10.5.0.0-16", "fd00.5..-48". */
const labelOf = (network: string): string => network.replace('/', '-').replaceAll(':', '.');

/** Several networks on one machine do not meet in one chain: each has its own, named by the network. */
export function nftTableName(network: string): string {
  return `tulle-${labelOf(network)}`;
}

/** Long IPv6 networks are named by a hash: a chain of iptables has at most 28 characters. */
export function chainName(kind: 'NAT' | 'FWD', network: string): string {
  const name = `TULLE-${kind}-${labelOf(network)}`;
  if (name.length <= LONGEST_CHAIN) return name;
  return `TULLE-${kind}-${createHash('sha256').update(network).digest('hex').slice(0, 16)}`;
}

/** The table with the masquerade. nft replaces a table as a whole in one transaction: made if missing, deleted, made. */
export function nftScript({ family, network, subnet, randomFully }: TrafficPlan): string {
  const ip = nftFamily(family);
  const table = `${ip} ${nftTableName(network)}`;
  const masquerade = `masquerade${randomFully ? ' fully-random' : ''}`;
  return `add table ${table}
delete table ${table}
table ${table} {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & ${MARK} == ${MARK} return
    ${ip} saddr ${subnet} ${ip} daddr ${network} return
    ${ip} saddr ${network} ${ip} daddr ${subnet} return
    ${ip} saddr != ${network} ${ip} daddr ${subnet} return
    ${ip} saddr ${network} ${ip} daddr != ${MULTICAST[family]} ${masquerade}
    ${ip} saddr != ${network} ${ip} daddr ${network} ${masquerade}
  }
}
`;
}

/** Rules of iptables without "-A CHAIN", as iptables-restore takes them and iptables-save prints them. */
export function iptablesMasquerade({ family, network, subnet, randomFully }: TrafficPlan): string[] {
  const comment = '-m comment --comment "tulle masquerade"';
  const masquerade = `-j MASQUERADE${randomFully ? ' --random-fully' : ''}`;
  return [
    `-m mark --mark ${MARK}/${MARK} ${comment} -j RETURN`,
    `-s ${subnet} -d ${network} ${comment} -j RETURN`,
    `-s ${network} -d ${subnet} ${comment} -j RETURN`,
    `! -s ${network} -d ${subnet} ${comment} -j RETURN`,
    `-s ${network} ! -d ${MULTICAST[family]} ${comment} ${masquerade}`,
    `! -s ${network} -d ${network} ${comment} ${masquerade}`,
  ];
}

export function iptablesForward({ network }: Pick<TrafficPlan, 'network'>): string[] {
  const comment = '-m comment --comment "tulle forward"';
  return [`-s ${network} ${comment} -j ACCEPT`, `-d ${network} ${comment} -j ACCEPT`];
}
