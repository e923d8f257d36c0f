/** Flags → the validated, typed options of the daemon. Everything that can be refused without touching the machine is. */

import { resolve } from 'node:path';
import { type Endpoint, parseEndpoints } from '../../etcd/endpoints.ts';
import { offloadsOf } from '../backend/offloads.ts';
import { staysOnLink6 } from '../datapath/route6.ts';
import { LONGEST_SOCKET_PATH } from '../host/unix-socket.ts';
import { journalPath } from '../lease/journal.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { parseAddress4 } from '../wire/ip4.ts';
import { parseAddress6 } from '../wire/ip6.ts';
import { type FlagName, flagTable } from './flags.ts';
import { type KubeRegistryOptions, kubeOptions, refuseKubeFlags, wantsKube } from './kube-options.ts';
import type { ParsedFlags } from './parse-flags.ts';

export interface FileRegistryOptions {
  kind: 'file';
  directory: string;
}

export interface EtcdRegistryOptions {
  kind: 'etcd';
  endpoints: string[];
  prefix: string;
  caFile?: string;
  certFile?: string;
  keyFile?: string;
  username?: string;
  password?: string;
}

/** Which interface of the underlay to use, in the order of flanneld's rules; see lib/host/interface.ts. */
export interface InterfaceOptions {
  iface: string[];
  ifaceRegex: string[];
  ifaceCanReach?: string;
  publicIp?: string;
  publicIp6?: string;
}

/** Rules in the machine's packet filter; see lib/host/rules/traffic.ts. */
export interface RuleOptions {
  masquerade: boolean;
  randomFully: boolean;
  forward: boolean;
  resyncSeconds: number;
  removeOnExit: boolean;
}

export interface DaemonOptions {
  registry: FileRegistryOptions | EtcdRegistryOptions | KubeRegistryOptions;
  interface: InterfaceOptions;
  subnetFile: string;
  /** See lib/lease/journal.ts. */
  journalFile: string;
  leaseTtlSeconds: number;
  renewMarginSeconds: number;
  releaseOnExit: boolean;
  /** Absent: the machine's own, see lib/host/node-id.ts. */
  nodeId?: string;
  transport: 'offload' | 'batch' | 'dgram';
  withoutOffloads: readonly string[];
  /** 0: peers are not probed. */
  probeIntervalMs: number;
  /** Absent: by the network's backend, see daemon.ts. */
  deviceName?: string;
  /** Absent: CNI is not served. `given`: the operator asked for this very socket, so it must work. */
  cni?: { socket: string; given: boolean; dataDir: string };
  /** Absent: there is none. `given` as with CNI. */
  control?: { socket: string; given: boolean };
  /** The live page; absent: none. */
  ui?: { address: string; port: number };
  /** Serve CNI and nothing else. */
  cniOnly: boolean;
  rules: RuleOptions;
  health?: { address: string; port: number };
  log: { format: 'text' | 'json'; verbosity: number; secrets: string[] };
}

/** Survives a reboot, as it must: see lib/cni/store.ts. */
const CNI_DATA_DIRECTORY = '/var/lib/tulle/cni';

const SHORTEST_PROBE_MS = 100;
const LONGEST_PROBE_MS = 3_600_000;

/** The longest name of a link: IFNAMSIZ of linux/if.h is 16, the closing zero included. */
const LONGEST_DEVICE_NAME = 15;

/** @throws TulleError 'bad-option': one line that begins with the flag. */
export function daemonOptions(parsed: ParsedFlags): DaemonOptions {
  const { values } = parsed;
  const subnetFile = resolve(notEmpty(parsed, 'subnet-file'));
  return {
    registry: registryOptions(parsed),
    interface: interfaceOptions(parsed),
    subnetFile,
    journalFile: journalPath(subnetFile, values['state-dir'] === '' ? undefined : resolve(values['state-dir'])),
    ...leaseTimes(parsed),
    releaseOnExit: values['release-on-exit'],
    ...(values['node-id'] !== '' && { nodeId: nodeIdOption(parsed) }),
    transport: values.transport as DaemonOptions['transport'],
    withoutOffloads: offloadNames(parsed),
    probeIntervalMs: probeInterval(parsed),
    ...(values.device !== '' && { deviceName: deviceOption(parsed) }),
    ...cniOptions(parsed),
    ...controlOptions(parsed),
    ...uiOption(parsed),
    rules: {
      masquerade: values['ip-masq'],
      randomFully: !values['ip-masq-fully-random-disable'],
      forward: values['iptables-forward-rules'],
      resyncSeconds: values['iptables-resync'],
      removeOnExit: values['remove-rules-on-exit'],
    },
    ...(values['healthz-port'] !== 0 && {
      health: { address: addressOption(parsed, 'healthz-ip'), port: values['healthz-port'] },
    }),
    log: {
      format: values['log-format'] as 'text' | 'json',
      verbosity: values.v,
      secrets: values['etcd-password'] === '' ? [] : [values['etcd-password']],
    },
  };
}

function offloadNames(parsed: ParsedFlags): readonly string[] {
  const names = parsed.values['without-offload'];
  try {
    offloadsOf('offload', names);
  } catch (error) {
    throw bad(parsed, 'without-offload', messageOf(error));
  }
  return names;
}

function probeInterval(parsed: ParsedFlags): number {
  const interval = parsed.values['probe-interval'];
  // Below it every peer would be asked more often than it listens; above it a lost peer is news of yesterday.
  if (interval === 0 || (interval >= SHORTEST_PROBE_MS && interval <= LONGEST_PROBE_MS)) return interval;
  throw bad(parsed, 'probe-interval', 'it must be from 100ms to 1h, or 0 for none');
}

function registryOptions(parsed: ParsedFlags): DaemonOptions['registry'] {
  if (wantsKube(parsed)) return kubeOptions(parsed, bad);
  refuseKubeFlags(parsed, bad);
  const text = parsed.values.registry;
  if (text === 'etcd') return etcdOptions(parsed);
  const directory = text.startsWith('file:') ? text.slice('file:'.length) : '';
  if (directory === '') throw bad(parsed, 'registry', `"${text}" is none of "etcd", "kube" and "file:DIR"`);
  const etcdFlag = [...parsed.given.keys()].find(name => name.startsWith('etcd-'));
  if (etcdFlag !== undefined)
    throw bad(parsed, etcdFlag, 'it has no meaning with a file registry; leave one of them out');
  return { kind: 'file', directory: resolve(directory) };
}

function etcdOptions(parsed: ParsedFlags): EtcdRegistryOptions {
  const { values } = parsed;
  const endpoints = etcdEndpoints(parsed);
  const secure = endpoints.filter(endpoint => endpoint.secure);
  if (secure.length !== 0 && secure.length !== endpoints.length) {
    throw bad(parsed, 'etcd-endpoints', 'some are http and some https; make them the same');
  }

  const prefix = values['etcd-prefix'].replace(/\/+$/, '');
  if (!/^\/[^\s]+$/.test(prefix)) {
    throw bad(parsed, 'etcd-prefix', `"${values['etcd-prefix']}" is not a key like /coreos.com/network`);
  }

  requirePair(parsed, 'etcd-certfile', 'etcd-keyfile');
  requirePair(parsed, 'etcd-username', 'etcd-password');
  for (const name of ['etcd-cafile', 'etcd-certfile', 'etcd-keyfile'] as const) {
    if (values[name] !== '' && secure.length === 0) {
      throw bad(parsed, name, 'TLS needs endpoints that begin with https://; change -etcd-endpoints');
    }
  }
  return {
    kind: 'etcd',
    endpoints: endpoints.map(endpoint => endpoint.url),
    prefix,
    ...(values['etcd-cafile'] !== '' && { caFile: resolve(values['etcd-cafile']) }),
    ...(values['etcd-certfile'] !== '' && { certFile: resolve(values['etcd-certfile']) }),
    ...(values['etcd-keyfile'] !== '' && { keyFile: resolve(values['etcd-keyfile']) }),
    ...(values['etcd-username'] !== '' && { username: values['etcd-username'] }),
    ...(values['etcd-password'] !== '' && { password: values['etcd-password'] }),
  };
}

function etcdEndpoints(parsed: ParsedFlags): Endpoint[] {
  const texts = parsed.values['etcd-endpoints'].split(',');
  if (texts.some(text => text.includes('@'))) {
    throw bad(parsed, 'etcd-endpoints', 'no user or password in the URL; use -etcd-username and -etcd-password');
  }
  try {
    return parseEndpoints(texts);
  } catch (error) {
    throw bad(parsed, 'etcd-endpoints', messageOf(error));
  }
}

function requirePair(parsed: ParsedFlags, first: FlagName, second: FlagName): void {
  const [a, b] = [parsed.values[first], parsed.values[second]];
  if (a !== '' && b === '') throw bad(parsed, first, `it needs -${second} too`);
  if (a === '' && b !== '') throw bad(parsed, second, `it needs -${first} too`);
}

function interfaceOptions(parsed: ParsedFlags): InterfaceOptions {
  const { values } = parsed;
  if (values.iface.includes('')) throw bad(parsed, 'iface', 'the name is empty');
  return {
    iface: values.iface,
    ifaceRegex: values['iface-regex'],
    ...(values['iface-can-reach'] !== '' && { ifaceCanReach: addressOption(parsed, 'iface-can-reach') }),
    ...(values['public-ip'] !== '' && { publicIp: publicAddress(parsed) }),
    ...(values['public-ipv6'] !== '' && { publicIp6: publicAddress6(parsed) }),
  };
}

function publicAddress(parsed: ParsedFlags): string {
  const text = parsed.values['public-ip'];
  const address = parseAddress4(text);
  if (address === undefined) throw bad(parsed, 'public-ip', `"${text}" is not an IPv4 address like 192.0.2.10`);
  const first = address >>> 24;
  if (first === 0 || first === 127 || first >= 224) {
    throw bad(parsed, 'public-ip', `no other node can send to ${text}; give an address of this node`);
  }
  return text;
}

function publicAddress6(parsed: ParsedFlags): string {
  const text = parsed.values['public-ipv6'];
  const bytes = parseAddress6(text);
  if (bytes === undefined) throw bad(parsed, 'public-ipv6', `"${text}" is not an IPv6 address like 2001:db8::10`);
  if (staysOnLink6(bytes, 0)) {
    throw bad(parsed, 'public-ipv6', `no other node can send to ${text}; give an address of this node`);
  }
  return text;
}

function addressOption(parsed: ParsedFlags, name: 'healthz-ip' | 'iface-can-reach'): string {
  const text = parsed.values[name];
  if (parseAddress4(text) !== undefined) return text;
  if (name === 'healthz-ip' && parseAddress6(text) !== undefined) return text;
  throw bad(parsed, name, `"${text}" is not an IP address`);
}

/** The TTL in whole seconds, and how long before its end it is renewed. */
function leaseTimes(parsed: ParsedFlags): { leaseTtlSeconds: number; renewMarginSeconds: number } {
  const leaseTtlSeconds = Math.round(parsed.values['lease-ttl'] / 1000);
  // Shorter than this a slow disk or a paused machine loses the lease; longer than 32 bits of seconds etcd refuses.
  if (leaseTtlSeconds < 3 || leaseTtlSeconds > 2 ** 31) {
    throw bad(parsed, 'lease-ttl', 'it must be at least 3s and not longer than a life; give for example 24h');
  }
  const renewMarginSeconds = parsed.values['subnet-lease-renew-margin'] * 60;
  if (renewMarginSeconds < leaseTtlSeconds) return { leaseTtlSeconds, renewMarginSeconds };
  if (parsed.given.has('subnet-lease-renew-margin')) {
    throw bad(parsed, 'subnet-lease-renew-margin', `the lease lives only ${leaseTtlSeconds} s; make -lease-ttl longer`);
  }
  // The default margin does not fit a short TTL: renew after a third, as etcd's own keepalive does.
  return { leaseTtlSeconds, renewMarginSeconds: Math.ceil((leaseTtlSeconds * 2) / 3) };
}

function cniOptions(parsed: ParsedFlags): Pick<DaemonOptions, 'cni' | 'cniOnly'> {
  const { given, values } = parsed;
  const cniOnly = values['cni-only'];
  if (isNone(values['cni-socket'])) {
    if (cniOnly) throw bad(parsed, 'cni-only', 'there is nothing to serve without -cni-socket');
    return { cniOnly };
  }
  const path = socketPath(parsed, 'cni-socket');
  const isDefault = path === flagTable['cni-socket'].default;
  const dataDir = resolve(values['cni-data-dir'] || (isDefault ? CNI_DATA_DIRECTORY : `${path}.state`));
  return { cni: { socket: path, given: given.has('cni-socket') || cniOnly, dataDir }, cniOnly };
}

function controlOptions(parsed: ParsedFlags): Pick<DaemonOptions, 'control'> {
  if (isNone(parsed.values['control-socket'])) return {};
  return { control: { socket: socketPath(parsed, 'control-socket'), given: parsed.given.has('control-socket') } };
}

/** "127.0.0.1:8286", "[::1]:8286", or a port alone, on the loopback address. */
function uiOption(parsed: ParsedFlags): Pick<DaemonOptions, 'ui'> {
  const text = parsed.values.ui;
  if (text === '') return {};
  const match = /^(?:(?:\[([0-9a-f:.]+)\]|([0-9.]+)):)?(\d{1,5})$/i.exec(text);
  const address = match?.[1] ?? match?.[2] ?? '127.0.0.1';
  const port = Number(match?.[3]);
  const isAddress = parseAddress4(address) !== undefined || parseAddress6(address) !== undefined;
  if (match !== null && isAddress && port >= 1 && port <= 65_535) return { ui: { address, port } };
  throw bad(parsed, 'ui', `"${text}" is no address and port; give for example 127.0.0.1:8286`);
}

/** Said instead of a socket's path: there is none. */
const isNone = (path: string): boolean => path === 'none' || path === '';

function socketPath(parsed: ParsedFlags, name: 'cni-socket' | 'control-socket'): string {
  const path = resolve(parsed.values[name]);
  if (Buffer.byteLength(path) <= LONGEST_SOCKET_PATH) return path;
  throw bad(parsed, name, `"${path}" is longer than ${LONGEST_SOCKET_PATH} bytes`);
}

function nodeIdOption(parsed: ParsedFlags): string {
  const text = parsed.values['node-id'];
  if (/^[A-Za-z0-9._-]{1,64}$/.test(text)) return text;
  throw bad(parsed, 'node-id', `"${text}" is not 1 to 64 letters, digits, ".", "_" and "-"`);
}

function deviceOption(parsed: ParsedFlags): string {
  const text = parsed.values.device;
  // As the kernel's dev_valid_name; one %d at most, of which it replaces the first.
  const valid = /^[^\s/:%]*(%d)?[^\s/:%]*$/.test(text) && text.length <= LONGEST_DEVICE_NAME && !/^\.{1,2}$/.test(text);
  if (valid) return text;
  throw bad(
    parsed,
    'device',
    `"${text}" is not a device name: at most ${LONGEST_DEVICE_NAME} characters, as in tulle%d`,
  );
}

function notEmpty(parsed: ParsedFlags, name: 'subnet-file'): string {
  if (parsed.values[name] === '') throw bad(parsed, name, 'the name of the file is empty');
  return parsed.values[name];
}

/** The message begins with what was written: the flag or the variable. */
function bad(parsed: ParsedFlags, name: FlagName, message: string): TulleError {
  return new TulleError('bad-option', `${parsed.given.get(name) ?? `-${name}`}: ${message}`);
}
