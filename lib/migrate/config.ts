/** flannel's configurations: net-conf, CNI configuration, subnet.env. */
import { readNetwork } from '../daemon/network.ts';
import { fieldOf } from '../lease/config.ts';
import { parseSubnetEnv } from '../lease/subnet-env.ts';
import { messageOf } from '../util/errors.ts';
import { formatCidr4, formatCidr6 } from '../wire/cidr.ts';
import { type Fields, type Findings, fieldsOf, isFields, listOf, textOf } from './finding.ts';

/** Of flannel's backends, what instead. */
const BACKENDS: Record<string, string> = {
  vxlan: '',
  'host-gw': ' (pods of one layer-2 segment then go through the overlay, too)',
  wireguard: ' (and nothing is encrypted then: where that was the reason, keep flannel)',
  ipsec: ' (and nothing is encrypted then: where that was the reason, keep flannel)',
  ipip: '',
  alloc: ' (flannel carried no packets here: give tulled what else does)',
  extension: ' (its commands are not run)',
  'tencent-vpc': ' (routes of the cloud are not set)',
  'ali-vpc': ' (routes of the cloud are not set)',
  'aws-vpc': ' (routes of the cloud are not set)',
  gce: ' (routes of the cloud are not set)',
};
const ADDRESS_KEYS = [
  'Network',
  'IPv6Network',
  'SubnetLen',
  'SubnetMin',
  'SubnetMax',
  'IPv6SubnetLen',
  'IPv6SubnetMin',
  'IPv6SubnetMax',
];
const KNOWN_KEYS = new Set(
  [...ADDRESS_KEYS, 'EnableIPv4', 'EnableIPv6', 'EnableNFTables', 'Backend'].map(key => key.toLowerCase()),
);

/** Returns the net-conf for tulled, undefined where there is no way to make one. */
export function checkNetConf(netConf: Fields, source: string, findings: Findings): Fields | undefined {
  const say = findings.at(source);
  for (const key of ADDRESS_KEYS)
    if (fieldOf(netConf, key) !== undefined) say('carries', key, 'the same key, the same meaning');
  if (fieldOf(netConf, 'EnableNFTables') !== undefined) {
    say('differs', 'EnableNFTables', 'tulled takes nftables wherever they work, else iptables, whatever it says');
  }
  for (const key of Object.keys(netConf))
    if (!KNOWN_KEYS.has(key.toLowerCase())) say('differs', key, 'flannel does not know it, nor does tulled');

  const backend = fieldsOf(fieldOf(netConf, 'Backend'));
  const given = fieldOf(backend, 'Type');
  const type = given === undefined ? 'udp' : textOf(given);
  const proposed = proposeNetConf(netConf, type);
  checkBackend(backend, given, type, say);
  try {
    readNetwork(JSON.stringify(proposed), 'net-conf');
  } catch (error) {
    say(
      'change',
      'net-conf',
      `with the backend changed tulled still refuses it: ${messageOf(error).replace(/^net-conf: /, '')}`,
    );
    return undefined;
  }
  return proposed;
}

function checkBackend(backend: Fields, given: unknown, type: string, say: ReturnType<Findings['at']>): void {
  if (type === 'tulle') {
    say('carries', 'Backend.Type', 'it is tulle already');
    return;
  }
  if (type === 'udp') {
    const absent = given === undefined ? 'absent means udp: ' : '';
    say(
      'carries',
      'Backend.Type',
      `${absent}tulled speaks flannel's format on the same port, so nodes may be moved one after the other`,
    );
    for (const key of Object.keys(backend)) {
      const name = key.toLowerCase();
      if (name === 'port') say('carries', 'Backend.Port', 'the same port');
      else if (name !== 'type') say('differs', `Backend.${key}`, 'no option of the backend udp, here or there');
    }
    return;
  }
  const known = Object.hasOwn(BACKENDS, type);
  const hint = known ? BACKENDS[type] : ' (flannel does not know this one, either)';
  say(
    'change',
    'Backend.Type',
    `"${type}": set it to "tulle"${hint}; a node of one backend does not reach one of the other, so all nodes change in one go`,
  );
  for (const key of Object.keys(backend)) {
    if (key.toLowerCase() !== 'type') say('differs', `Backend.${key}`, `an option of ${type}; left out with it`);
  }
}

/** As it stands, with a backend that tulled has. */
function proposeNetConf(netConf: Fields, type: string): Fields {
  if (type === 'udp' || type === 'tulle') return netConf;
  const rest = Object.entries(netConf).filter(([key]) => key.toLowerCase() !== 'backend');
  return { ...Object.fromEntries(rest), Backend: { Type: 'tulle' } };
}

/** Returns the conflist for tulle. */
export function checkCni(config: Fields, source: string, findings: Findings): Fields | undefined {
  const say = findings.at(source);
  const isList = config['plugins'] !== undefined;
  const plugins = isList ? listOf(config['plugins']) : [config];
  if (!plugins.some(plugin => fieldsOf(plugin)['type'] === 'flannel')) {
    say('change', 'plugins', 'none of them is flannel; this is not a configuration that tulle takes over');
    return undefined;
  }
  say(
    'carries',
    'name',
    `"${textOf(config['name'])}": keep it or not; addresses that flannel's plugin gave are not known here, so drain a node before its plugin changes`,
  );
  const changed = plugins.map(plugin => checkPlugin(fieldsOf(plugin), say));
  say(
    'change',
    'the file',
    'runtimes take the first file by name, and 10-flannel.conflist comes before 10-tulle.conflist: remove it from each node when it has its tulled',
  );
  if (isList) return { ...config, plugins: changed };
  const { name, cniVersion, ...plugin } = changed[0];
  return { cniVersion: cniVersion ?? '0.3.1', name, plugins: [plugin] };
}

function checkPlugin(plugin: Fields, say: ReturnType<Findings['at']>): Fields {
  const type = textOf(plugin['type']);
  if (type !== 'flannel') {
    say('carries', `plugin ${type}`, 'chained as before; its program must be where the runtime looks for plugins');
    return plugin;
  }
  say('change', 'plugin flannel', 'set "type" to "tulle-cni"; "delegate" stays as it is');
  const { delegate, dataDir, ...rest } = plugin;
  const inner = fieldsOf(delegate);
  const delegateType = inner['type'] ?? 'bridge';
  if (delegateType !== 'bridge' && delegateType !== 'ptp') {
    say('change', 'delegate.type', `"${textOf(delegateType)}": only bridge and ptp are built in; take one of them`);
  } else if (isFields(delegate)) say('carries', 'delegate', `keys of the ${delegateType} plugin, with their meanings`);
  for (const key of ['vlan', 'vlanTrunk'])
    if (inner[key] !== undefined) say('change', `delegate.${key}`, 'frames are not tagged here; leave it out');
  if (plugin['subnetFile'] !== undefined)
    say('carries', 'subnetFile', 'it is read where it is given; tulled needs the same -subnet-file');
  if (dataDir !== undefined) say('differs', 'dataDir', "of flannel's plugin; tulle keeps its record in --cni-data-dir");
  return { ...rest, type: 'tulle-cni', ...(delegate !== undefined && { delegate }) };
}

export function checkSubnetEnv(text: string, source: string, findings: Findings): void {
  const say = findings.at(source);
  const { networks, subnets, networks6, subnets6, mtu, ipMasq } = parseSubnetEnv(text);
  const names = [...networks.map(formatCidr4), ...networks6.map(formatCidr6)];
  if (names.length > 0) say('carries', 'FLANNEL_NETWORK', `${names.join(', ')}: as in the net-conf`);
  const own = [...subnets.map(formatCidr4), ...subnets6.map(formatCidr6)];
  if (own.length > 0)
    say(
      'carries',
      'FLANNEL_SUBNET',
      `${own.join(', ')}: tulled with this file as its -subnet-file takes the same one, where nobody else has it`,
    );
  else say('change', 'FLANNEL_SUBNET', 'no subnet that makes sense is in it; remove the file');
  if (mtu !== undefined)
    say(
      'differs',
      'FLANNEL_MTU',
      `${mtu}: tulled writes its own (1460 on an underlay of 1500); pods that run keep theirs until they are made again`,
    );
  if (ipMasq !== undefined) say('carries', 'FLANNEL_IPMASQ', `${ipMasq}: from -ip-masq, as before`);
}
