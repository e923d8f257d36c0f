/**
 * What one request means on this node: its configuration, and what the node's lease fills in where the configuration says
 * nothing. Pure. A configuration in the style of flannel's meta plugin (`delegate`, `subnetFile`) becomes what flannel
 * would have handed to the bridge plugin (flannel's cni-plugin, flannel_linux.go).
 */
import type { SubnetEnv } from '../lease/subnet-env.ts';
import { formatCidr4, formatCidr6, type Subnet4, type Subnet6 } from '../wire/cidr.ts';
import { parseRangeSets, type RangeSet } from './ipam/range.ts';
import { CNI_ERROR, type CniConfig, CniError, type CniRequest, type CniRoute, type IpRange } from './plugin.ts';
import { parseConfig } from './protocol/config.ts';
import { excerpt, Fields, isObject, type JsonObject, lenient, strict } from './protocol/fields.ts';

/** What the node's lease says to its pods. */
export interface NodeNetwork {
  subnet?: Subnet4;
  subnet6?: Subnet6;
  /** The pod network. */
  network?: Subnet4;
  network6?: Subnet6;
  /** Bytes; what fits through the overlay. */
  mtu: number;
  /** The daemon masquerades for all pods; then no pod needs a rule of its own. */
  masquerade?: boolean;
}

export type Addressing =
  | { kind: 'none' }
  | { kind: 'built-in'; sets: RangeSet[]; routes: readonly CniRoute[]; resolvConf?: string }
  | { kind: 'delegated'; type: string; config: JsonObject };

export interface Settings {
  config: CniConfig;
  addressing: Addressing;
  /** The subnets come from the node's lease, not from the configuration. */
  leased: boolean;
  /** Bytes; absent: the kernel's choice. */
  mtu?: number;
  isGateway: boolean;
  isDefaultGateway: boolean;
  masquerade: boolean;
  /** Masquerading is the configuration's wish, not our default. */
  masqueradeAsked: boolean;
  /** CIDRs that pods reach with their own address. */
  podNetworks: readonly string[];
}

export interface SettingsSources {
  /** Undefined where there is no lease (yet). */
  node: () => NodeNetwork | undefined;
  /** Undefined when there is no such file. */
  readSubnetFile: (path: string) => SubnetEnv | undefined;
}

/** flannel's. */
const DEFAULT_SUBNET_FILE = '/run/flannel/subnet.env';

/** @throws CniError 7 for what does not fit together, 11 where there is no lease to take addresses from */
export function settingsOf(request: CniRequest, sources: SettingsSources): Settings {
  const { config, raw } = request.config.delegate === undefined ? request : rendered(request);
  checkTogether(config);
  const node = nodeNetwork(request.config, sources);
  const addressing = addressingOf(config, raw, node);
  const { leased } = addressing;
  // flannel's defaults where the lease gives the addresses, the bridge plugin's where the configuration does.
  const silent = config.isGateway === undefined && new Fields(raw, '', lenient).value('isDefaultGateway') === undefined;
  const isDefaultGateway = config.isDefaultGateway || (leased && silent && request.config.delegate === undefined);
  const isGateway = isDefaultGateway || (config.isGateway ?? leased);
  const mtu = config.mtu ?? node?.mtu;
  const masquerade = config.ipMasq ?? (leased && node?.masquerade === false);
  return {
    config,
    addressing: addressing.addressing,
    leased,
    ...(mtu !== undefined && mtu > 0 && { mtu }),
    isGateway,
    isDefaultGateway,
    masquerade,
    masqueradeAsked: config.ipMasq === true,
    podNetworks: networksOf(node),
  };
}

function refuse(message: string): CniError {
  return new CniError(CNI_ERROR.config, message);
}

function checkTogether(config: CniConfig): void {
  if (config.hairpinMode && config.promiscMode) {
    throw refuse('cannot set hairpin mode and promiscuous mode at the same time: hairpinMode, promiscMode');
  }
  if (config.disableContainerInterface && config.ipam !== undefined && config.ipam.type !== '') {
    throw refuse('cannot use IPAM when DisableContainerInterface flag is set: disableContainerInterface, ipam.type');
  }
  if (config.vlan !== 0 || config.vlanTrunk.length > 0) {
    const field = config.vlan === 0 ? 'vlanTrunk' : `vlan ${config.vlan}`;
    throw new CniError(CNI_ERROR.unsupportedField, `${field}: tulle-cni does not tag frames: leave it out`);
  }
}

// ---- flannel's style

/** The configuration that flannel would hand to the delegate, with the delegate's own keys. */
function rendered(request: CniRequest): { config: CniConfig; raw: JsonObject } {
  const delegate = request.config.delegate ?? {};
  const fields = new Fields({ ...delegate }, 'delegate', strict);
  for (const key of ['name', 'ipam']) {
    if (fields.value(key) === undefined) continue;
    throw refuse(`'delegate' dictionary must not have '${key}' field, it'll be set by flannel: delegate.${key}`);
  }
  const type = fields.text('type') ?? 'bridge';
  const isOurs = type === 'bridge' || type === 'ptp' || type === request.config.type;
  if (!isOurs) throw refuse(`delegate.type: ${excerpt(type)}: it must be bridge or ptp`);
  const outer = new Fields(request.raw, '', lenient);
  const kept = ['cniVersion', 'name', 'ipam', 'dns', 'runtimeConfig', 'args', 'prevResult'].flatMap(key => {
    const value = outer.value(key);
    return value === undefined ? [] : [[key, value] as const];
  });
  const raw: JsonObject = { ...delegate, ...Object.fromEntries(kept), type: request.config.type };
  if (type === 'ptp') raw['mode'] = 'ptp';
  return { config: parseConfig(raw, request.args), raw };
}

/** The file that the configuration names; else this node's lease; else, in flannel's style, flannel's file. */
function nodeNetwork(config: CniConfig, sources: SettingsSources): NodeNetwork | undefined {
  if (config.subnetFile !== undefined) {
    const env = sources.readSubnetFile(config.subnetFile);
    if (env === undefined) throw refuse(`subnetFile: there is no file ${config.subnetFile}: is the overlay running?`);
    return fromSubnetEnv(env);
  }
  const node = sources.node();
  if (node !== undefined || config.delegate === undefined) return node;
  const env = sources.readSubnetFile(DEFAULT_SUBNET_FILE);
  return env === undefined ? undefined : fromSubnetEnv(env);
}

function fromSubnetEnv(env: SubnetEnv): NodeNetwork {
  const [subnet] = env.subnets;
  const [subnet6] = env.subnets6;
  const [network] = env.networks;
  const [network6] = env.networks6;
  return {
    ...(subnet && { subnet }),
    ...(subnet6 && { subnet6 }),
    ...(network && { network }),
    ...(network6 && { network6 }),
    mtu: env.mtu ?? 0,
    masquerade: env.ipMasq ?? false,
  };
}

// ---- addresses

function addressingOf(
  config: CniConfig,
  raw: JsonObject,
  node: NodeNetwork | undefined,
): { addressing: Addressing; leased: boolean } {
  if (config.disableContainerInterface) return { addressing: { kind: 'none' }, leased: false };
  const { ipam } = config;
  if (ipam !== undefined && isDelegated(config)) return delegated(ipam.type, raw, node);
  const given = ipam?.ranges ?? [];
  const leased = given.length === 0;
  const ranges = leased ? leasedRanges(config, node) : given;
  const addressing: Addressing = {
    kind: 'built-in',
    sets: parseRangeSets(ranges),
    routes: [...(ipam?.routes ?? []), ...(leased ? networksOf(node).map(dst => ({ dst })) : [])],
    ...(ipam?.resolvConf !== undefined && { resolvConf: ipam.resolvConf }),
  };
  return { addressing, leased };
}

export const isDelegated = (config: CniConfig): boolean =>
  config.ipam !== undefined && config.ipam.type !== '' && config.ipam.type !== 'tulle';

function leasedRanges(config: CniConfig, node: NodeNetwork | undefined): IpRange[][] {
  const ranges = subnetsOf(node).map(subnet => [{ subnet }]);
  if (ranges.length > 0) return ranges;
  throw new CniError(
    CNI_ERROR.tryLater,
    `network ${config.name}: this node has no lease yet, and the configuration gives no ipam.ranges: try again later`,
  );
}

/** host-local without a range gets the lease's, as from flannel; other plugins get what they were given. */
function delegated(
  type: string,
  raw: JsonObject,
  node: NodeNetwork | undefined,
): { addressing: Addressing; leased: boolean } {
  const fields = new Fields(raw, '', lenient);
  const ipam = fields.object('ipam');
  const runtimeConfig = fields.object('runtimeConfig');
  const hasRanges =
    ipam?.value('subnet') !== undefined ||
    (ipam?.list('ranges').length ?? 0) > 0 ||
    (runtimeConfig?.list('ipRanges').length ?? 0) > 0;
  if (type !== 'host-local' || hasRanges || ipam === undefined || node === undefined) {
    return { addressing: { kind: 'delegated', type, config: raw }, leased: false };
  }
  const filled = {
    ...ipam.raw,
    ranges: subnetsOf(node).map(subnet => [{ subnet }]),
    routes: [...ipam.list('routes').filter(isObject), ...networksOf(node).map(dst => ({ dst }))],
  };
  return { addressing: { kind: 'delegated', type, config: { ...raw, ipam: filled } }, leased: true };
}

/** CIDRs. */
export function subnetsOf(node: NodeNetwork | undefined): string[] {
  return [
    ...(node?.subnet === undefined ? [] : [formatCidr4(node.subnet)]),
    ...(node?.subnet6 === undefined ? [] : [formatCidr6(node.subnet6)]),
  ];
}

function networksOf(node: NodeNetwork | undefined): string[] {
  return [
    ...(node?.network === undefined ? [] : [formatCidr4(node.network)]),
    ...(node?.network6 === undefined ? [] : [formatCidr6(node.network6)]),
  ];
}
