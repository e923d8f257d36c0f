/**
 * The seam between the CNI protocol (lib/cni/protocol: what runtimes say) and the plugin that does the work (attachment,
 * addresses). The protocol side hands over a request that is already validated, with one shape whatever CNI version was
 * spoken, and turns results and errors back into the version of the caller.
 *
 * Calls for one network and container are serialised by the server; GC runs alone in its network. Different containers
 * run concurrently.
 */
import { TulleError } from '../util/errors.ts';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS';

export interface CniRequest {
  command: CniCommand;
  /** Both '' in GC and STATUS. */
  containerId: string;
  ifname: string;
  /**
   * Absolute path of the namespace file as this process sees it; it was a namespace, and not the host's, a moment ago.
   * '' in GC and STATUS, and in DEL also where CNI_NETNS is empty, gone, no longer a namespace, or the host's.
   */
  netns: string;
  /** CNI_ARGS, keys as sent. Unknown keys were refused already unless IgnoreUnknown was there. */
  args: ReadonlyMap<string, string>;
  /** CNI_ARGS as sent, for plugins that are delegated to. */
  argsText: string;
  /** CNI_PATH: folders in which delegated plugins are looked for. */
  path: string[];
  config: CniConfig;
  /** The configuration as it was sent, keys untouched: what a delegated plugin gets, changed where needed. */
  raw: Record<string, unknown>;
  /** Present when another plugin ran before this one, and in CHECK and DEL (where the runtime keeps results). */
  prevResult?: CniResult;
  /** GC only: what is still in use. Absent: the runtime did not say; nothing may be removed on its account. */
  validAttachments?: readonly Attachment[];
  /** Aborted when nobody waits for the answer any more; the work may go on, an ADD should undo itself. */
  signal: AbortSignal;
}

export interface Attachment {
  containerId: string;
  ifname: string;
}

/** The plugin configuration: known keys, typed, with their defaults. Keys were matched without regard to case. */
export interface CniConfig {
  cniVersion: CniVersion;
  /** The network's name. */
  name: string;
  /** The name under which the runtime runs us. */
  type: string;
  /** bridge (default) or a routed veth pair. */
  mode: 'bridge' | 'ptp';
  /** Default cni0. */
  bridge: string;
  /** Also true when isDefaultGateway is. Absent: not given; the plugin decides (reference: false). */
  isGateway?: boolean;
  isDefaultGateway: boolean;
  forceAddress: boolean;
  /** Absent: not given. */
  ipMasq?: boolean;
  ipMasqBackend?: 'iptables' | 'nftables';
  /** Absent or 0 in the configuration: from the overlay. */
  mtu?: number;
  hairpinMode: boolean;
  promiscMode: boolean;
  /** 0: none. */
  vlan: number;
  vlanTrunk: readonly { minID?: number; maxID?: number; id?: number }[];
  preserveDefaultVlan: boolean;
  macspoofchk: boolean;
  enabledad: boolean;
  disableContainerInterface: boolean;
  portIsolation: boolean;
  /** Absent: no `ipam` key. An `ipam` of {} is there with type ''. */
  ipam?: IpamConfig;
  /** The configuration's own dns, which goes before the one of address management. Absent: not given. */
  dns?: CniDns;
  /** What the runtime asks for this one container, after precedence runtimeConfig > args.cni > CNI_ARGS. */
  wanted: {
    /** Addresses or CIDRs, as text that parses as one; empty: any. */
    ips: readonly string[];
    /** Lower case, six pairs. */
    mac?: string;
  };
  /** The runtime's declared capabilities with keys as sent (portMappings, bandwidth, …): passed on, not used. */
  runtimeConfig: Readonly<Record<string, unknown>>;
  /** flannel's meta plugin (facts: `type: flannel` conflists): the delegate's configuration, keys as sent. */
  delegate?: Readonly<Record<string, unknown>>;
  /** flannel's subnet.env; absent: not given. */
  subnetFile?: string;
  /** flannel's dataDir; absent: not given. */
  dataDir?: string;
}

export interface IpamConfig {
  /** '' when the key is missing. '' and 'tulle' are the built-in management; any other names a plugin. */
  type: string;
  /**
   * The range sets, one address of each: runtimeConfig.ipRanges, then the old single `subnet`, then `ranges`. Subnets
   * and addresses parse; whether they fit together is for address management to say. Only read for the built-in.
   */
  ranges: readonly (readonly IpRange[])[];
  routes: readonly CniRoute[];
  dataDir?: string;
  resolvConf?: string;
}

/** host-local's Range. Text as sent, already known to parse. */
export interface IpRange {
  /** CIDR. */
  subnet: string;
  rangeStart?: string;
  rangeEnd?: string;
  gateway?: string;
}

/** The newest shape (1.1.0); the protocol converts to and from every other version. */
export interface CniResult {
  interfaces: CniInterface[];
  ips: CniIp[];
  routes: CniRoute[];
  dns: CniDns;
}

export interface CniInterface {
  name: string;
  mac?: string;
  mtu?: number;
  /** The namespace's path for what is inside the container. */
  sandbox?: string;
  socketPath?: string;
  pciID?: string;
}

export interface CniIp {
  /** CIDR. */
  address: string;
  gateway?: string;
  /** Index into interfaces. */
  interface?: number;
}

export interface CniRoute {
  /** CIDR. */
  dst: string;
  gw?: string;
  mtu?: number;
  advmss?: number;
  priority?: number;
  table?: number;
  scope?: number;
}

export interface CniDns {
  nameservers?: string[];
  domain?: string;
  search?: string[];
  options?: string[];
}

export interface CniPlugin {
  /** Must leave nothing behind when it throws. */
  add(request: CniRequest): Promise<CniResult>;
  /** Succeeds when there is nothing to remove. */
  del(request: CniRequest): Promise<void>;
  check(request: CniRequest): Promise<void>;
  gc(request: CniRequest): Promise<void>;
  /** Throws CniError 50 or 51 when an ADD would not work. */
  status(request: CniRequest): Promise<void>;
  /** Called once, when this process alone serves the socket and before the first request. */
  start?(): Promise<void>;
  /** Called once, after the last request. */
  close?(): void;
}

export const CNI_VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];

/** SPEC.md section 5 "Error", and 8 and 999 of libcni (types.go). 100 and up are a plugin's own. */
export const CNI_ERROR = {
  version: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  environment: 4,
  io: 5,
  decode: 6,
  config: 7,
  namespace: 8,
  tryLater: 11,
  unavailable: 50,
  limited: 51,
  internal: 999,
} as const;

/** An error with its CNI code. `details` is free text that goes out beside the one-line message. */
export class CniError extends TulleError {
  readonly cniCode: number;
  readonly details: string | undefined;

  constructor(cniCode: number, message: string, options: { details?: string; cause?: unknown } = {}) {
    super(`cni-${cniCode}`, message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CniError';
    this.cniCode = cniCode;
    this.details = options.details;
  }
}
