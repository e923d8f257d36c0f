/** Which addresses of the node the overlay uses and the lease publishes, by the versions of IP that the net-conf asks for. */
import type { ChosenInterface } from '../host/interface.ts';
import type { LeaseAttributes } from '../lease/lease.ts';
import { TulleError } from '../util/errors.ts';
import { parseAddress6 } from '../wire/ip6.ts';
import type { DaemonNetwork } from './network.ts';
import type { InterfaceOptions } from './options.ts';

/** What the interface must have. */
export function interfaceNeeds({ backend }: Pick<DaemonNetwork, 'backend'>): { needIp4: boolean; needIp6: boolean } {
  return { needIp4: backend.underlay !== 6, needIp6: backend.underlay === 6 };
}

/**
 * The address that the socket is bound to. Code 'no-address' for an IPv6 underlay on an interface that has only a link-local
 * address: nobody else could name it.
 */
export function underlayAddress({ backend }: Pick<DaemonNetwork, 'backend'>, chosen: ChosenInterface): string {
  if (backend.underlay !== 6) return chosen.address4!; // chooseInterface refuses one without
  const address = chosen.address6!;
  if (!isLinkLocal(address)) return address;
  throw new TulleError(
    'no-address',
    `interface ${chosen.name} has only the link-local address ${address}: give it another one, or choose with -iface`,
  );
}

/** What the lease says of the node's addresses, in flannel's shape. A network of IPv4 alone says nothing of IPv6, as flannel's. */
export function publicAddresses(
  options: Pick<InterfaceOptions, 'publicIp' | 'publicIp6'>,
  { config, backend }: Pick<DaemonNetwork, 'backend'> & { config: { enableIPv6: boolean } },
  chosen: ChosenInterface,
): Pick<LeaseAttributes, 'PublicIP' | 'PublicIPv6'> {
  const found = chosen.address6 !== undefined && !isLinkLocal(chosen.address6) ? chosen.address6 : null;
  const speaksIp6 = config.enableIPv6 || backend.underlay === 6;
  return {
    PublicIP: options.publicIp ?? chosen.address4 ?? '0.0.0.0',
    PublicIPv6: speaksIp6 ? (options.publicIp6 ?? found) : null,
  };
}

/** fe80::/10 (RFC 4291 §2.5.6) */
function isLinkLocal(address: string): boolean {
  const bytes = parseAddress6(address);
  return bytes !== undefined && bytes[0] === 0xfe && (bytes[1] & 0xc0) === 0x80;
}
