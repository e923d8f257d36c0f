/** Gathers the facts of the real machine. It reads, and tries what it can in a namespace of its own; it changes nothing. */
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { BRIDGE_NETFILTER } from '../../host/bridge-netfilter.ts';
import { chooseInterface, type InterfaceOptions } from '../../host/interface.ts';
import { getSysctl } from '../../host/sysctl.ts';
import { type Rtnetlink, withRtnetlink } from '../../netlink/netlink.ts';
import { monotonicMs } from '../../sys/sys.ts';
import { messageOf } from '../../util/errors.ts';
import { overlaps4, parseCidr4 } from '../../wire/cidr.ts';
import type { MachineFacts } from './facts.ts';
import { findPortHolders } from './ports.ts';
import { tryKernel } from './trials.ts';

export interface GatherOptions {
  interface: InterfaceOptions;
  dataPort: number;
  /** The pod network and tulled's own device and process, where a daemon runs. */
  network: string | undefined;
  device: string | undefined;
  daemonPid: number | undefined;
}

/** Long enough for a step of the wall clock to show, short enough not to be waited for. */
const CLOCK_LOOK_MS = 200;

/** Whose links these are; only names that no person gives to anything else. */
const FOREIGN_LINKS: readonly [pattern: RegExp, of: string][] = [
  [/^flannel(\.\d+|-v6\.\d+|\d+|-wg(-v6)?)$/, 'flannel'],
  [/^cilium_(host|net|vxlan|geneve)$/, 'Cilium'],
  [/^(vxlan\.calico|vxlan-v6\.calico|wireguard\.cali|cali[0-9a-f]{11})$/, 'Calico'],
  [/^(weave|vxlan-6784|vethwe-(bridge|datapath))$/, 'Weave Net'],
  [/^antrea-(gw0|tun0|egress0)$/, 'Antrea'],
  [/^kube-bridge$/, 'kube-router'],
];
/** What a link of ours is called: never somebody else's route. */
const OUR_LINKS = /^(tulle|cni|lo)/;

export async function gatherFacts(options: GatherOptions): Promise<MachineFacts> {
  const isRoot = process.geteuid?.() === 0;
  const [wall, monotonic] = [Date.now(), monotonicMs()];
  await delay(CLOCK_LOOK_MS);
  const jumpMs = Date.now() - wall - (monotonicMs() - monotonic);
  const trials = await tryKernel();
  const machine = withRtnetlink(undefined, netlink => lookAtLinks(netlink, options));
  return {
    nodeVersion: process.versions.node,
    isRoot,
    ...trials,
    userNamespacesOff: userNamespacesOff(),
    bridgeNetfilter: number(undefined, BRIDGE_NETFILTER[4], value => value !== 0),
    ipForward: number(undefined, 'net.ipv4.ip_forward', value => value !== 0),
    rpFilter: 'name' in machine.underlay ? rpFilterOf(machine.underlay.name) : undefined,
    ...machine,
    dataPort: options.dataPort,
    portHolders: findPortHolders(options.dataPort, options.daemonPid),
    clock: { nowMs: Date.now(), jumpMs, synchronised: isSynchronised() },
  };
}

function lookAtLinks(
  netlink: Rtnetlink,
  { interface: wanted, network, device }: GatherOptions,
): Pick<MachineFacts, 'underlay' | 'foreignLinks' | 'conflicts'> {
  const links = netlink.links();
  const foreignLinks = links.flatMap(({ name }) => {
    const of = name === device ? undefined : FOREIGN_LINKS.find(([pattern]) => pattern.test(name))?.[1];
    return of === undefined ? [] : [{ name, of }];
  });
  const range = network === undefined ? undefined : parseCidr4(network);
  const conflicts = netlink.routes(4).flatMap(({ destination, link, family, table }) => {
    const route = family === 4 && table !== LOCAL_TABLE ? parseCidr4(destination) : undefined;
    if (range === undefined || route === undefined || link === undefined || link === device || OUR_LINKS.test(link))
      return [];
    return route.prefixLength > 0 && overlaps4(range, route) ? [`${destination} dev ${link}`] : [];
  });
  return { underlay: underlayOf(netlink, wanted), foreignLinks, conflicts };
}

const LOCAL_TABLE = 255;

function underlayOf(netlink: Rtnetlink, wanted: InterfaceOptions): MachineFacts['underlay'] {
  try {
    const { name, mtu, address4, address6 } = chooseInterface(netlink, wanted);
    return { name, mtu, up: netlink.link(name)?.up ?? false, address: address4 ?? address6 ?? '' };
  } catch (error) {
    return { error: messageOf(error) };
  }
}

/** The kernel takes the greater of both (Documentation/networking/ip-sysctl.rst: rp_filter). */
function rpFilterOf(link: string): number | undefined {
  const all = number(undefined, 'net/ipv4/conf/all/rp_filter', value => value);
  const own = number(undefined, `net/ipv4/conf/${link}/rp_filter`, value => value);
  return all === undefined || own === undefined ? undefined : Math.max(all, own);
}

function number<T>(namespace: string | undefined, key: string, convert: (value: number) => T): T | undefined {
  try {
    return convert(Number(getSysctl(namespace, key)));
  } catch {
    return undefined; // this kernel does not have it
  }
}

function userNamespacesOff(): string | undefined {
  const isZero = (key: string): boolean => number(undefined, key, value => value === 0) === true;
  if (!existsSync('/proc/self/ns/user')) return 'this kernel has none';
  if (isZero('user.max_user_namespaces')) return 'user.max_user_namespaces is 0';
  if (isZero('kernel.unprivileged_userns_clone')) return 'kernel.unprivileged_userns_clone is 0';
  if (number(undefined, 'kernel.apparmor_restrict_unprivileged_userns', value => value === 1) === true)
    return 'kernel.apparmor_restrict_unprivileged_userns is 1';
  return undefined;
}

/** systemd's own client leaves a file; of others nothing is known. */
function isSynchronised(): boolean | undefined {
  if (!existsSync('/run/systemd/timesync')) return undefined;
  if (existsSync('/run/systemd/timesync/synchronized')) return true;
  try {
    // Not in a container, whose clock is somebody else's business.
    return readFileSync('/proc/1/comm', 'latin1').trim() === 'systemd' ? false : undefined;
  } catch {
    return undefined;
  }
}
