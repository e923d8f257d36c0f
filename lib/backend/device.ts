/** The TUN device as the backends use it: opened with what the kernel offers, addressed, up, and routed to. */
import { setSysctl } from '../host/sysctl.ts';
import { withRtnetlink } from '../netlink/netlink.ts';
import { close, openTun, setTunOffloads } from '../sys/sys.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { formatCidr4, formatCidr6, type Subnet4, type Subnet6 } from '../wire/cidr.ts';
import { formatAddress4 } from '../wire/ip4.ts';

export interface DeviceOptions {
  name: string;
  /** The device's own address (as /32): flannel takes the subnet's first, which no pod gets. */
  address: number;
  /** What is routed to the device. */
  network: Subnet4;
  /** The same for IPv6, in a dual-stack network. */
  ip6?: { address: bigint; network: Subnet6 };
  mtu: number;
  /** What to ask the kernel for: sets of TUN_F_ bits, the first that it accepts counts; none means no offloads. */
  offloadLadder: readonly number[];
  log: Logger;
}

export interface Device {
  handle: number;
  name: string;
  /** The TUN_F_ bits that the kernel accepted. */
  offloads: number;
}

/**
 * Packets that may wait in the device: the kernel drops what comes when it is full, it never makes a sender wait
 * (drivers/net/tun.c: tun_net_xmit), and flannel's 500 is soon full of super-packets' acknowledgements.
 */
const QUEUE_LENGTH = 1_000;

/** Opens and configures the device; nothing of it is left when it throws. It ends with its handle. */
export function openDevice(options: DeviceOptions): Device {
  const { handle, name } = openTun({ name: options.name, vnetHeader: true, offloads: 0 });
  try {
    const accepted = options.offloadLadder.find(offloads => tryOffloads(handle, offloads));
    if (accepted !== options.offloadLadder[0]) {
      options.log.info({ device: name, offloads: accepted ?? 0 }, 'this kernel has not all TUN offloads');
    }
    const { ip6 } = options;
    if (ip6 === undefined) disableIpv6(name, options.log);
    else enableIpv6(name);
    withRtnetlink(undefined, netlink => {
      netlink.setLink(name, { mtu: options.mtu, txQueueLength: QUEUE_LENGTH });
      netlink.addAddress(name, `${formatAddress4(options.address)}/32`);
      if (ip6 !== undefined) {
        netlink.addAddress(name, formatCidr6({ address: ip6.address, prefixLength: 128 }), { nodad: true });
      }
      netlink.setLink(name, { up: true });
      netlink.addRoute({ destination: formatCidr4(options.network), link: name, replace: true });
      if (ip6 !== undefined) netlink.addRoute({ destination: formatCidr6(ip6.network), link: name, replace: true });
    });
    return { handle, name, offloads: accepted ?? 0 };
  } catch (error) {
    close(handle);
    throw error;
  }
}

function tryOffloads(handle: number, offloads: number): boolean {
  try {
    setTunOffloads(handle, offloads);
    return true;
  } catch {
    return false;
  }
}

/**
 * The overlay's IPv6 is ours to address: no link-local address of the kernel's own making and no router solicitations, which
 * would go into the device. (Some multicast reports still do; they are counted as egress-link-local.)
 */
function enableIpv6(name: string): void {
  const set = (key: string, value: number): void => void setSysctl(undefined, `net/ipv6/conf/${name}/${key}`, value);
  set('disable_ipv6', 0);
  set('addr_gen_mode', 1); // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
  set('router_solicitations', 0);
  set('accept_ra', 0);
}

/** The overlay carries IPv4 alone: without this the kernel sends router solicitations into the device. */
function disableIpv6(name: string, log: Logger): void {
  try {
    setSysctl(undefined, `net.ipv6.conf.${name}.disable_ipv6`, 1);
  } catch (error) {
    // A kernel without IPv6, or /proc/sys read-only: at worst a few counted drops.
    log.debug({ device: name, reason: messageOf(error) }, 'IPv6 stays on for the device');
  }
}
