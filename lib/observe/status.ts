/**
 * `tulle status`: what a node says of itself. A pure function from what the daemon knows to one JSON document, and from
 * that to whether the node is well. Nothing secret goes in, so nothing secret comes out.
 */
import type { Peer } from '../datapath/peers.ts';
import { FORMAT_TULLE } from '../datapath/slab.ts';
import { leaseKeyOf } from '../lease/lease.ts';
import type { LeaseStatus } from '../lease/manager.ts';
import { formatCidr4, formatCidr6 } from '../wire/cidr.ts';
import { formatAddress4 } from '../wire/ip4.ts';
import { formatAddress6 } from '../wire/ip6.ts';
import type { RegistryHealth } from './registry-meter.ts';

/** What probes know of a peer; null is "not known (yet)". */
export interface PeerMeasure {
  rttMs: number | null;
  lossPct: number | null;
  /** How long ago anything valid came from it. */
  lastHeardMs: number | null;
  /** Bytes of the largest outer IP packet that crosses. */
  pathMtu: number | null;
  /** Probed, and silent for nearly three intervals. */
  silent: boolean;
}

export interface StatusInput {
  /** tulled's version, how long it has been running, and its process. */
  version: string;
  uptimeMs: number;
  pid: number;
  node: string | undefined;
  /** --cni-only: no lease, no overlay. */
  cniOnly: boolean;
  /** What the start waits for; undefined when the node is ready. */
  waitingFor: string | undefined;
  network: { network: string; network6?: string; backend: string } | undefined;
  lease: LeaseStatus | undefined;
  ttlSeconds: number;
  /** `endpoints`: without user info. */
  registry: { kind: string; where: string; endpoints: readonly string[]; health: RegistryHealth } | undefined;
  overlay: OverlayInput | undefined;
  /** The node id of the lease that a peer has. */
  nodeOf(peer: Peer): string | undefined;
  measureOf(peer: Peer): PeerMeasure | undefined;
  rates: Record<string, number> | undefined;
  rules: { masquerade: string; forward: string; degraded?: string } | undefined;
  cni: { results: ReadonlyMap<string, number>; running: number; waiting: number } | undefined;
}

export interface OverlayInput {
  device: string;
  mtu: number;
  port: number;
  running: boolean;
  transport: string;
  underlayError: string | undefined;
  offloads: Readonly<Record<string, { on: boolean; reason: string; why: string }>>;
  peers: readonly { peer: Peer; pathMtu: number }[];
  drops: Readonly<Record<string, number>>;
  counters: Readonly<Record<string, number>>;
}

export interface PeerStatus {
  subnet: string;
  subnet6?: string;
  node: string | null;
  endpoint: string;
  /** "tulle", or "bare" for flannel's. */
  format: string;
  /** Eight hexadecimal digits, as in every datagram of the peer. */
  leaseKey: string;
  lastHeardMs: number | null;
  rttMs: number | null;
  lossPct: number | null;
  /** Bytes of the outer IP packet. */
  pathMtu: number;
  silent: boolean;
}

export interface Problem {
  code: string;
  /** 'error': the node is not well; 'warning': something that a person should know. */
  severity: 'error' | 'warning';
  text: string;
}

/** One line for a lease, whether it is held or not. */
export interface LeaseDocument {
  subnet: string | null;
  subnet6: string | null;
  publicIp: string | null;
  /** Eight hexadecimal digits. */
  key: string | null;
  revision: number | null;
  /** Without a TTL: it never ends. */
  reservation: boolean;
  ttlSeconds: number;
  /** Until forwarding stops unless the lease is renewed; null: never, or no lease. */
  secondsLeft: number | null;
  renewedSecondsAgo: number | null;
  fenced: boolean;
  /** Why the registry does not renew it at present. */
  trouble: { reason: string; forSeconds: number } | null;
}

export type StatusDocument = ReturnType<typeof statusDocument>;

const tenths = (value: number): number => Math.round(value * 10) / 10;
const seconds = (ms: number): number => tenths(ms / 1000);
const hex8 = (key: number): string => key.toString(16).padStart(8, '0');

export function statusDocument(input: StatusInput) {
  const { overlay, registry, rules, cni, cniOnly } = input;
  const lease = leaseDocument(input);
  const peers = overlay?.peers.map(entry => peerStatus(entry, input)).sort(byEndpointOfSubnet) ?? [];
  const problems = problemsOf(input, lease, peers);
  return {
    node: input.node ?? null,
    version: input.version,
    pid: input.pid,
    uptimeSeconds: Math.floor(input.uptimeMs / 1000),
    mode: cniOnly ? 'cni-only' : 'node',
    healthy: problems.every(problem => problem.severity !== 'error'),
    ready: input.waitingFor === undefined,
    waitingFor: input.waitingFor ?? null,
    problems,
    network: input.network ?? null,
    lease,
    registry: {
      kind: registry?.kind ?? null,
      where: registry?.where ?? null,
      endpoints: registry?.endpoints ?? [],
      healthy: registry?.health.healthy ?? cniOnly,
      reason: registry?.health.reason ?? null,
      unhealthySeconds: registry?.health.forMs === undefined ? null : seconds(registry.health.forMs),
    },
    overlay:
      overlay === undefined
        ? null
        : {
            device: overlay.device,
            mtu: overlay.mtu,
            port: overlay.port,
            transport: overlay.transport,
            running: overlay.running,
            underlayError: overlay.underlayError ?? null,
          },
    peers,
    drops: overlay?.drops ?? {},
    counters: overlay?.counters ?? {},
    rates: input.rates ?? null,
    offloads: overlay?.offloads ?? {},
    rules: rules ?? null,
    cni: cni === undefined ? null : { calls: callsOf(cni.results), running: cni.running, waiting: cni.waiting },
  };
}

function leaseDocument({ lease: status, ttlSeconds }: StatusInput): LeaseDocument {
  const lease = status?.lease;
  if (status === undefined || lease === undefined) {
    const nothing = { subnet: null, subnet6: null, publicIp: null, key: null, revision: null, reservation: false };
    return { ...nothing, ttlSeconds, secondsLeft: null, renewedSecondsAgo: null, fenced: false, trouble: null };
  }
  const { deadlineInMs, renewedForMs, trouble } = status;
  return {
    subnet: formatCidr4(lease.subnet),
    subnet6: lease.subnet6 === undefined ? null : formatCidr6(lease.subnet6),
    publicIp: lease.attributes.PublicIP,
    key: hex8(leaseKeyOf(lease)),
    revision: lease.modRevision,
    reservation: lease.expiresAtMs === null,
    ttlSeconds,
    secondsLeft: Number.isFinite(deadlineInMs) ? seconds(Math.max(0, deadlineInMs)) : null,
    renewedSecondsAgo: renewedForMs === undefined ? null : seconds(renewedForMs),
    fenced: status.fenced,
    trouble: trouble === undefined ? null : { reason: trouble.reason, forSeconds: seconds(trouble.forMs) },
  };
}

function peerStatus({ peer, pathMtu }: { peer: Peer; pathMtu: number }, input: StatusInput): PeerStatus {
  const { subnet, subnet6, address, port, key, format } = peer;
  const measure = input.measureOf(peer);
  const host = typeof address === 'number' ? formatAddress4(address) : `[${formatAddress6(address, 0)}]`;
  return {
    subnet: formatCidr4(subnet),
    ...(subnet6 !== undefined && { subnet6: formatCidr6(subnet6) }),
    node: input.nodeOf(peer) ?? null,
    endpoint: `${host}:${port}`,
    format: format === FORMAT_TULLE ? 'tulle' : 'bare',
    leaseKey: hex8(key),
    lastHeardMs: measure?.lastHeardMs ?? null,
    rttMs: measure?.rttMs ?? null,
    lossPct: measure?.lossPct ?? null,
    pathMtu: measure?.pathMtu ?? pathMtu,
    silent: measure?.silent ?? false,
  };
}

function byEndpointOfSubnet(a: PeerStatus, b: PeerStatus): number {
  const numberOf = ({ subnet }: PeerStatus): number =>
    subnet.split(/[./]/).reduce((total, part) => total * 256 + Number(part), 0);
  return numberOf(a) - numberOf(b);
}

/** "ADD 0" → 3 becomes { ADD: { ok: 3 } }; errors by their code. */
function callsOf(results: ReadonlyMap<string, number>): Record<string, Record<string, number>> {
  const calls: Record<string, Record<string, number>> = {};
  for (const [name, count] of results) {
    const [command, code] = name.split(' ');
    calls[command] ??= {};
    calls[command][code === '0' ? 'ok' : code] = count;
  }
  return calls;
}

/** All that is not as it should be, the worst first. */
function problemsOf(input: StatusInput, lease: LeaseDocument, peers: readonly PeerStatus[]): Problem[] {
  const problems: Problem[] = [];
  const add = (severity: Problem['severity'], code: string, text: string): void => {
    problems.push({ code, severity, text });
  };
  const { overlay, registry, rules, waitingFor } = input;
  if (lease.fenced) add('error', 'fenced', 'its lease was not renewed in time, or is gone: it forwards nothing');
  else if (waitingFor !== undefined) add('error', 'not-ready', `it is not ready: it waits for ${waitingFor}`);
  if (registry !== undefined && !registry.health.healthy) {
    const since = Math.round((registry.health.forMs ?? 0) / 1000);
    add('error', 'registry', `its registry is not well for ${since} s: ${registry.health.reason}`);
  }
  if (lease.trouble !== null && registry?.health.reason !== lease.trouble.reason) {
    add('error', 'renewal', `its lease cannot be renewed for ${lease.trouble.forSeconds} s: ${lease.trouble.reason}`);
  }
  if (overlay?.running === false) add('error', 'data-path', 'its data path was lost and is being made again');
  if (overlay?.underlayError !== undefined) {
    add('error', 'underlay', `the underlay refuses its datagrams (${overlay.underlayError}): is the link up?`);
  }
  if (rules?.degraded !== undefined) add('error', 'rules', rules.degraded);
  for (const peer of peers) {
    if (peer.silent) add('warning', 'silent-peer', `${peer.node ?? peer.subnet} at ${peer.endpoint} does not answer`);
  }
  return problems;
}
