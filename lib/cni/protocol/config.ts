/**
 * The plugin configuration, from the JSON of stdin to a `CniConfig`: the keys of the reference `bridge` and `host-local`
 * and of flannel's meta plugin. What the runtime wants for one container is found in three places; the last one in this
 * list that says something counts (CONVENTIONS.md): CNI_ARGS, args.cni, runtimeConfig.
 */
import type { CniConfig, IpamConfig, IpRange } from '../plugin.ts';
import { isCidr, isIp, isIpOrCidr, normalMac } from './addresses.ts';
import { Fields, type JsonObject, type OnProblem, strict } from './fields.ts';
import { checkNetworkName, checkVersion } from './names.ts';
import { readDns, readRoute } from './result.ts';

const MODES = ['bridge', 'ptp'];
const MASQ_BACKENDS = ['iptables', 'nftables'];
/** The largest MTU that a veth takes (ETH_MAX_MTU). */
const LARGEST_MTU = 65_535;
const LARGEST_VLAN = 4094;

/**
 * @param args CNI_ARGS
 * @param onProblem what to do about wrong values of everything but cniVersion and name, which always throw
 * @throws CniError 1, 6 or 7, naming the key and the value
 */
export function parseConfig(
  raw: JsonObject,
  args: ReadonlyMap<string, string>,
  onProblem: OnProblem = strict,
): CniConfig {
  const fields = new Fields(raw, '', onProblem);
  const name = fields.value('name');
  checkNetworkName(name);
  const cniVersion = checkVersion(fields.value('cniVersion'));
  const isDefaultGateway = fields.flag('isDefaultGateway') ?? false;
  const isGateway = isDefaultGateway ? true : fields.flag('isGateway');
  const delegate = fields.object('delegate');
  const runtimeConfig = fields.object('runtimeConfig');
  const ipam = fields.object('ipam');
  const dns = fields.object('dns');
  const config: CniConfig = {
    cniVersion,
    name,
    type: fields.text('type') ?? '',
    mode: oneOf(fields, 'mode', MODES) === 'ptp' ? 'ptp' : 'bridge',
    bridge: bridgeName(fields),
    isDefaultGateway,
    forceAddress: fields.flag('forceAddress') ?? false,
    hairpinMode: fields.flag('hairpinMode') ?? false,
    promiscMode: fields.flag('promiscMode') ?? false,
    vlan: fields.integer('vlan', 0, LARGEST_VLAN) ?? 0,
    vlanTrunk: fields.objects('vlanTrunk').map(vlanRange),
    preserveDefaultVlan: fields.flag('preserveDefaultVlan') ?? true,
    macspoofchk: fields.flag('macspoofchk') ?? false,
    enabledad: fields.flag('enabledad') ?? false,
    disableContainerInterface: fields.flag('disableContainerInterface') ?? false,
    portIsolation: fields.flag('portIsolation') ?? false,
    wanted: wanted(fields, runtimeConfig, args),
    runtimeConfig: runtimeConfig?.raw ?? {},
  };
  if (isGateway !== undefined) config.isGateway = isGateway;
  const mtu = fields.integer('mtu', 0, LARGEST_MTU);
  if (mtu !== undefined && mtu !== 0) config.mtu = mtu;
  const ipMasq = fields.flag('ipMasq');
  if (ipMasq !== undefined) config.ipMasq = ipMasq;
  const backend = oneOf(fields, 'ipMasqBackend', MASQ_BACKENDS);
  if (backend !== undefined) config.ipMasqBackend = backend as 'iptables' | 'nftables';
  if (ipam !== undefined) config.ipam = ipamConfig(ipam, runtimeConfig);
  if (dns !== undefined) config.dns = readDns(dns);
  if (delegate !== undefined) config.delegate = delegate.raw;
  const subnetFile = fields.filled('subnetFile');
  if (subnetFile !== undefined) config.subnetFile = subnetFile;
  const dataDir = fields.filled('dataDir');
  if (dataDir !== undefined) config.dataDir = dataDir;
  return config;
}

function oneOf(fields: Fields, key: string, words: readonly string[]): string | undefined {
  return fields.checked(key, text => words.includes(text), `one of ${words.join(', ')}`);
}

function bridgeName(fields: Fields): string {
  const valid = (text: string): boolean => /^[^\s/:]{1,15}$/.test(text) && text !== '.' && text !== '..';
  return fields.checked('bridge', valid, 'a name of at most 15 characters without "/", ":" and spaces') ?? 'cni0';
}

function vlanRange(fields: Fields): { minID?: number; maxID?: number; id?: number } {
  const range: { minID?: number; maxID?: number; id?: number } = {};
  for (const key of ['minID', 'maxID', 'id'] as const) {
    const value = fields.integer(key, 0, LARGEST_VLAN);
    if (value !== undefined) range[key] = value;
  }
  return range;
}

function ipamConfig(fields: Fields, runtimeConfig: Fields | undefined): IpamConfig {
  const type = fields.text('type') ?? '';
  const isOurs = type === '' || type === 'tulle';
  const ipam: IpamConfig = {
    type,
    // Another plugin may give these keys another meaning.
    ranges: isOurs ? ranges(fields, runtimeConfig) : [],
    routes: isOurs ? fields.objects('routes').flatMap(inner => readRoute(inner) ?? []) : [],
  };
  const dataDir = isOurs ? fields.filled('dataDir') : undefined;
  if (dataDir !== undefined) ipam.dataDir = dataDir;
  const resolvConf = isOurs ? fields.filled('resolvConf') : undefined;
  if (resolvConf !== undefined) ipam.resolvConf = resolvConf;
  return ipam;
}

/** host-local's order: what the runtime asks for, then the single range of old configurations, then `ranges`. */
function ranges(ipam: Fields, runtimeConfig: Fields | undefined): IpRange[][] {
  const asked = runtimeConfig?.objectLists('ipRanges') ?? [];
  const single = ipam.value('subnet') === undefined ? [] : [[ipam]];
  return [...asked, ...single, ...ipam.objectLists('ranges')].map(set => set.flatMap(inner => range(inner) ?? []));
}

function range(fields: Fields): IpRange | undefined {
  const subnet = fields.checked('subnet', isCidr, 'a subnet like 10.5.1.0/24');
  if (subnet === undefined) {
    return fields.value('subnet') === undefined ? fields.refuse('subnet', '', 'a range needs one') : undefined;
  }
  const result: IpRange = { subnet };
  for (const key of ['rangeStart', 'rangeEnd', 'gateway'] as const) {
    const address = fields.checked(key, isIp, 'an IP address');
    if (address !== undefined) result[key] = address;
  }
  return result;
}

function wanted(
  fields: Fields,
  runtimeConfig: Fields | undefined,
  args: ReadonlyMap<string, string>,
): CniConfig['wanted'] {
  const inArgs = fields.object('args')?.object('cni');
  const inEnvironment = fields.sibling({ IP: args.get('IP'), MAC: args.get('MAC') }, 'CNI_ARGS');
  const places = [runtimeConfig, inArgs].filter(place => place !== undefined);
  const lists = [
    ...places.map(place => ips(place, 'ips', place.texts('ips'))),
    ips(inEnvironment, 'IP', single(inEnvironment.filled('IP'))),
  ];
  const mac = [...places, inEnvironment]
    .map(place => place.checked('mac', text => normalMac(text) !== undefined, 'a MAC address'))
    .find(text => text !== undefined);
  return {
    ips: lists.find(list => list.length > 0) ?? [],
    ...(mac !== undefined && { mac: normalMac(mac)! }),
  };
}

const single = (text: string | undefined): string[] => (text === undefined ? [] : [text]);

function ips(fields: Fields, key: string, texts: readonly string[]): string[] {
  return texts.filter(text => isIpOrCidr(text) || fields.refuse(key, text, 'it is not an IP address'));
}
