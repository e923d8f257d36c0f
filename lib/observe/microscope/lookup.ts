/** The arithmetic of an overlay, as lines for a learner: from a destination to its lease, from an MTU to what fits. Pure. */
import { parseCidr4, subnetIndex } from '../../wire/cidr.ts';
import { isIp6, totalLength } from '../../wire/either.ts';
import { formatAddress4, parseAddress4 } from '../../wire/ip4.ts';
import { HEADER_BYTES, TULLE_VERSION } from '../../wire/tulle.ts';
import type { Who } from './checks.ts';

type Fact = readonly [label: string, value: string];

/** How a destination becomes a peer. Empty where the leases are not known. */
export function lookupFacts(destination: string, who: Who | undefined): Fact[] {
  const address = parseAddress4(destination);
  const network = who === undefined ? undefined : parseCidr4(who.network);
  const length = parseCidr4(who?.nodes[0]?.subnet ?? '')?.prefixLength;
  if (who === undefined || address === undefined || network === undefined || length === undefined) return [];
  const index = subnetIndex(address, network, length);
  if (index < 0) return [['destination', `${destination} lies outside ${who.network}`]];
  const offset = address - network.address;
  const facts: Fact[] = [
    ['offset', `${destination} − ${formatAddress4(network.address)} = ${offset}`],
    ['subnet number', `${offset} ÷ ${2 ** (32 - length)} = ${index}, rounded down`],
  ];
  const holder = who.nodes.find(node => {
    const subnet = parseCidr4(node.subnet);
    return (
      subnet !== undefined && subnet.prefixLength === length && subnetIndex(subnet.address, network, length) === index
    );
  });
  facts.push(
    holder === undefined
      ? [`routes[${index}]`, 'nobody holds a lease for it']
      : [`routes[${index}]`, `${holder.name}, which holds ${holder.subnet}: ${holder.address}, port ${holder.port}`],
  );
  return facts;
}

/** How the datagram's length comes about, and whether it fits. `begin`: where the outer UDP's payload begins. */
export function widthFacts(outer: Uint8Array, begin: number, mtu: number | undefined): Fact[] {
  const ip = begin - 8;
  const tulle = outer[begin] >>> 4 === TULLE_VERSION ? HEADER_BYTES : 0;
  const inner = outer.length - begin - tulle;
  const sum = `${ip} IP + 8 UDP${tulle === 0 ? '' : ` + ${tulle} tulle`} + ${inner} = ${outer.length} bytes`;
  const facts: Fact[] = [['length', sum]];
  if (mtu !== undefined && mtu > 0)
    facts.push(['underlay MTU', `${mtu}: ${outer.length <= mtu ? `${mtu - outer.length} to spare` : 'too long'}`]);
  if (isIp6(outer, 0) || totalLength(outer, 0) === outer.length) return facts;
  return [...facts, ['captured as', 'one piece of a train, before the kernel cut it']];
}
