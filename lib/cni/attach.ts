/**
 * Plugs a pod in. The pair's far end is born inside the pod's namespace, so no link ever passes through the host under a
 * name that could clash. Everything here is synchronous netlink: from the bridge to the last route nobody else of this
 * process acts in between, and what was made is pushed on the undo stack as it is made.
 *
 *   bridge   cni0 [gateway/24] <- veth… <-> eth0 [address/24]        routes through the gateway
 *   ptp      veth… [gateway/32, route address/32] <-> eth0 [address/24], the gateway on the link, all else through it
 */
import { ensureForwarding } from '../host/forwarding.ts';
import type { Link, Rtnetlink } from '../netlink/netlink.ts';
import { throwFirst, withNamespaceFile, withRtnetlink } from '../netlink/netlink.ts';
import { codeOf } from '../util/errors.ts';
import type { Undo } from '../util/undo.ts';
import { type BridgeState, ensureBridge, ensureGateway, gatewayFor, hasPorts } from './bridge.ts';
import { bitsOf, type Family, familyOfText } from './ipam/address.ts';
import { aliasOf, macOf, randomMac } from './names.ts';
import { CNI_ERROR, CniError, type CniInterface, type CniIp, type CniRequest, type CniRoute } from './plugin.ts';
import { configurePodEnd, type PodEnd } from './pod-end.ts';
import type { Settings } from './settings.ts';

export interface Plug {
  request: CniRequest;
  settings: Settings;
  hostLink: string;
  ips: CniIp[];
  routes: CniRoute[];
  /** The host's namespace; absent: this process's own. */
  namespace: string | undefined;
  /** Bridges whose MAC address is pinned, with their indexes. */
  pinned: Map<string, number>;
  /** The gateways of leased subnets on bridges, and what is left of them from earlier leases. */
  gateways: {
    /** Removes the earlier ones; of these CIDRs the gateways stay. Returns the addresses that went. */
    dropStale(current: readonly string[], undo: Undo): string[];
    /** Another attachment has an address behind it. */
    isNeeded(cidr: string): boolean;
    note(cidr: string): void;
    forget(cidr: string): void;
  };
  /** Whether another attachment is on the bridge or about to be. */
  isShared(bridge: string): boolean;
}

export interface Plugged {
  interfaces: CniInterface[];
  ips: CniIp[];
  routes: CniRoute[];
  pod: PodEnd;
  /** Links of the host that must carry frames before the pod is of use. */
  carriers: string[];
}

/** What `plug` will do about addresses: gateways and default routes filled in. @throws CniError 7 */
export function planAddresses(settings: Settings, ips: readonly CniIp[], routes: readonly CniRoute[]): Plan {
  const { config, isGateway, isDefaultGateway } = settings;
  const needsGateway = isGateway || config.mode === 'ptp';
  // The container is the last interface of the result.
  const index = config.mode === 'ptp' ? 1 : 2;
  const planned = ips.map(ip => ({
    ...ip,
    interface: index,
    ...(ip.gateway === undefined && needsGateway && { gateway: gatewayFor(ip.address) }),
  }));
  const all = [...routes];
  for (const family of isDefaultGateway ? ([4, 6] as const) : []) {
    const dst = family === 4 ? '0.0.0.0/0' : '::/0';
    const gateway = planned.find(ip => familyOfText(ip.address) === family)?.gateway;
    const isThere = all.some(route => route.dst === dst && route.gw !== undefined);
    if (gateway !== undefined && !isThere) all.push({ dst, gw: gateway });
  }
  return { ips: planned, routes: all };
}

export interface Plan {
  ips: CniIp[];
  routes: CniRoute[];
}

/** @throws CniError, NetlinkError; the caller runs the undo */
export function plug(netlink: Rtnetlink, wish: Plug, undo: Undo): Plugged {
  const { request, settings, ips, routes, hostLink } = wish;
  const { config, mtu } = settings;
  const bridge = config.mode === 'bridge' ? makeBridge(netlink, wish, undo) : undefined;
  const [first] = ips;
  const mac = config.wanted.mac ?? (first === undefined ? randomMac() : macOf(first.address.split('/')[0]));
  const { host, forwards } = makePair(netlink, wish, { mac, bridge: bridge?.link }, undo);
  const pod: PodEnd = {
    netns: request.netns,
    ifname: request.ifname,
    // The kernel tells of a pair's far end by the number that it has there.
    index: host.peerIndex ?? indexInside(request),
    ips,
    routes,
    dad: config.enabledad,
    pointToPoint: config.mode === 'ptp',
  };
  const isPlugged = !config.disableContainerInterface;
  if (isPlugged) configurePodEnd(pod);
  // Only frames from the pod's own address come in: a locked port, with that address in the bridge's table.
  if (bridge !== undefined && config.macspoofchk) netlink.addPortMac(hostLink, mac);
  if (isPlugged) {
    if (bridge === undefined) addHostRoutes(netlink, wish);
    else if (settings.isGateway) addGateways(netlink, wish, bridge, undo);
    // Stays on: other pods need it, too.
    if (!forwards && (settings.isGateway || config.mode === 'ptp')) {
      const families = familiesOf(wish);
      ensureForwarding(wish.namespace, { ip4: families.includes(4), ip6: families.includes(6) });
    }
  }
  const interfaces = [
    ...(bridge === undefined
      ? []
      : [{ name: bridge.link.name, mac: bridge.link.mac, ...(mtu !== undefined && { mtu }) }]),
    { name: host.name, mac: host.mac, mtu: host.mtu },
    // Its address was ours to choose, and both ends have one MTU.
    { name: request.ifname, mac, mtu: host.mtu, sandbox: request.netns },
  ];
  if (!isPlugged) return { interfaces, ips: [], routes: [], pod, carriers: [] };
  const carriers = [hostLink, ...(bridge === undefined || bridge.link.running ? [] : [config.bridge])];
  return { interfaces, ips, routes, pod, carriers };
}

/** For a kernel that does not tell the host. */
function indexInside({ netns, ifname }: CniRequest): number {
  const link = withRtnetlink(netns, there => there.link(ifname));
  if (link === undefined) throw gone(ifname);
  return link.index;
}

const gone = (name: string): CniError =>
  new CniError(CNI_ERROR.internal, `link ${name} was removed while its pod was attached`);

function makeBridge(netlink: Rtnetlink, { settings, isShared, pinned }: Plug, undo: Undo): BridgeState {
  const { config, mtu } = settings;
  const name = config.bridge;
  const bridge = ensureBridge(netlink, {
    name,
    pinned,
    promiscuous: config.promiscMode,
    ...(mtu !== undefined && { mtu }),
  });
  if (bridge.made) {
    undo.push(`bridge ${name}`, () => {
      if (!isShared(name) && !hasPorts(netlink, name)) netlink.deleteLink(name);
    });
  }
  return bridge;
}

interface Pair {
  /** The host's end. */
  host: Link;
  /** The host forwards packets of the pod's families already. */
  forwards: boolean;
}

/**
 * The pair, the pod's end inside the pod's namespace.
 * @param mac the pod's
 */
function makePair(
  netlink: Rtnetlink,
  wish: Plug,
  { mac, bridge }: { mac: string; bridge: Link | undefined },
  undo: Undo,
): Pair {
  const { request, settings, hostLink } = wish;
  const { config, mtu } = settings;
  const { ifname, netns } = request;
  const guarded = bridge !== undefined && config.macspoofchk;
  const port = {
    ...(config.hairpinMode && { hairpin: true }),
    ...(config.portIsolation && { isolated: true }),
    ...(guarded && { locked: true, learning: false }),
  };
  const hasPort = bridge !== undefined && Object.keys(port).length > 0;
  const properties = {
    name: hostLink,
    peerName: ifname,
    peerMac: mac,
    up: true,
    ...(mtu !== undefined && { mtu }),
    ...(bridge !== undefined && { master: bridge.index }),
  };
  const alias = aliasOf({ network: config.name, containerId: request.containerId, ifname });
  const changes = { alias, ...(hasPort && { port }) };
  const create = (): Pair => {
    const batch = netlink.batch();
    const pair = withNamespaceFile(netns, `create veth ${hostLink}`, fd => {
      batch.createVeth(properties, fd);
      // Where the pair is refused because it is there already, it is one of the same attachment: it has the hash's name.
      // A port needs no address. Its own would be told to every port: with a thousand pods that took half of all work.
      batch.setLink(hostLink, { ...changes, ...(bridge !== undefined && { linkLocal: false }) });
      const answer = batch.link(hostLink);
      const needed = batch.length;
      const forwarding = familiesOf(wish).map(family => batch.forwarding(family));
      const refused = new Map(batch.run());
      if (!refused.has(0)) undo.push(`link ${hostLink}`, () => netlink.deleteLink(hostLink));
      const isWithoutIp6 = refused.get(1)?.code === 'EAFNOSUPPORT' && refused.delete(1);
      throwFirst(refused, needed);
      if (isWithoutIp6) netlink.setLink(hostLink, changes);
      return { host: answer.value, forwards: forwarding.every(({ value }) => value === true) };
    });
    if (pair.host === undefined) throw gone(hostLink);
    return { ...pair, host: pair.host };
  };
  try {
    return create();
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    if (netlink.link(hostLink) === undefined) {
      throw new CniError(
        CNI_ERROR.environment,
        `container veth name (CNI_IFNAME) "${ifname}" already exists in ${netns}`,
      );
    }
    // A relic of the same attachment: its namespace is no longer the one that is meant.
    netlink.deleteLink(hostLink);
    return create();
  }
}

export const familiesOf = ({ ips }: Pick<Plan, 'ips'>): Family[] =>
  ([4, 6] as const).filter(family => ips.some(ip => familyOfText(ip.address) === family));

function addGateways(
  netlink: Rtnetlink,
  { settings, ips, gateways }: Plug,
  { link: bridge, addresses }: BridgeState,
  undo: Undo,
): void {
  const { config, leased } = settings;
  const { name, index } = bridge;
  const wanted = ips.flatMap(({ address, gateway }) =>
    gateway === undefined ? [] : [`${gateway}/${address.split('/')[1]}`],
  );
  const gone = leased ? new Set(gateways.dropStale(wanted, undo)) : new Set();
  const present = addresses.filter(({ address, prefixLength }) => !gone.has(`${address}/${prefixLength}`));
  for (const cidr of wanted) {
    const wish = {
      bridge: name,
      index,
      cidr,
      forceAddress: config.forceAddress,
      leased,
      before: () => {
        if (leased) gateways.note(cidr);
      },
      undo: () => {
        if (gateways.isNeeded(cidr)) return;
        netlink.deleteAddress(name, cidr);
        gateways.forget(cidr);
      },
    };
    ensureGateway(netlink, wish, present, undo);
  }
}

/** The host's end has the gateway's address alone, and the way to the pod. Both go with the link. */
function addHostRoutes(netlink: Rtnetlink, { hostLink, ips }: Plug): void {
  for (const { address, gateway } of ips) {
    const family = familyOfText(address);
    const bits = bitsOf(family);
    netlink.addAddress(hostLink, `${gateway}/${bits}`, { nodad: family === 6 });
    netlink.addRoute({ destination: `${address.split('/')[0]}/${bits}`, link: hostLink });
  }
}
