/**
 * The metrics of a node: which there are, what each means, and its samples out of the status document and the meters.
 * Names are Prometheus': base units, `_total` for counters, labels from closed sets. docs/metrics.md lists them all, and a
 * test compares. Peers are the only labels that grow, and only up to MOST_PEERS of them are told one by one.
 */
import { BATCH_BOUNDS, DROP_REASONS } from '../datapath/counters.ts';
import type { CniMeter } from './cni-meter.ts';
import { Histogram } from './histogram.ts';
import type { ProcessFigures } from './process-figures.ts';
import type { Family, Labels, MetricType, Sample } from './prometheus.ts';
import type { RegistryMeter } from './registry-meter.ts';
import type { PeerStatus, StatusDocument } from './status.ts';

export interface MetricsInput {
  status: StatusDocument;
  registry: RegistryMeter;
  cni: CniMeter;
  process: ProcessFigures;
  nodeVersion: string;
  /** Wall clock, milliseconds since 1970. */
  nowMs: number;
}

/** More peers than this have no series of their own: a server must not drown in one node's. */
export const MOST_PEERS = 1000;

interface Metric {
  name: string;
  type: MetricType;
  help: string;
  /** The labels of every sample, for the documentation. */
  labels: readonly string[];
  samples(input: MetricsInput): readonly Sample[];
}

const flag = (value: boolean): number => (value ? 1 : 0);
const one = (value: number, labels?: Labels): Sample[] => [{ value, ...(labels !== undefined && { labels }) }];
const maybe = (value: number | null | undefined): Sample[] => (value === null || value === undefined ? [] : one(value));

/** A counter that both directions have, from the names "egress-x" and "ingress-x". */
const both =
  (what: string) =>
  ({ status }: MetricsInput): Sample[] =>
    ['egress', 'ingress'].map(direction => ({
      labels: { direction },
      value: status.counters[`${direction}-${what}`] ?? 0,
    }));

const direction = (name: string, help: string, what: string): Metric => ({
  name,
  type: 'counter',
  help,
  labels: ['direction'],
  samples: both(what),
});

/** One sample for each peer that has the value. */
const perPeer = (name: string, help: string, value: (peer: PeerStatus) => number | null): Metric => ({
  name,
  type: 'gauge',
  help,
  labels: ['subnet', 'node', 'endpoint'],
  samples: ({ status }) =>
    status.peers.slice(0, MOST_PEERS).flatMap(peer => {
      const found = value(peer);
      if (found === null) return [];
      const { subnet, node, endpoint } = peer;
      return [{ labels: { subnet, node: node ?? '', endpoint }, value: found }];
    }),
});

const gauge = (name: string, help: string, value: (input: MetricsInput) => number | null | undefined): Metric => ({
  name,
  type: 'gauge',
  help,
  labels: [],
  samples: input => maybe(value(input)),
});

/** "ADD 0" → 3 as samples with two labels. */
const pairs = (counts: ReadonlyMap<string, number>, first: string, second: string): Sample[] =>
  [...counts].map(([key, value]) => {
    const [a, b] = key.split(' ');
    return { labels: { [first]: a, [second]: b }, value };
  });

const NODE: readonly Metric[] = [
  {
    name: 'tulle_build_info',
    type: 'gauge',
    help: 'Always 1; the labels say which tulle this is and on which Node.js it runs.',
    labels: ['version', 'nodejs'],
    samples: ({ status, nodeVersion }) => one(1, { version: status.version, nodejs: nodeVersion }),
  },
  gauge('tulle_healthy', 'Whether tulle status calls this node healthy.', ({ status }) => flag(status.healthy)),
  gauge('tulle_ready', 'Whether the start is over and the lease proven, as /readyz says.', ({ status }) =>
    flag(status.ready),
  ),
  gauge(
    'tulle_fenced',
    'Whether forwarding stopped because the lease was not renewed in time or is not ours any more.',
    ({ status }) => flag(status.lease.fenced),
  ),
  {
    name: 'tulle_lease_info',
    type: 'gauge',
    help: 'Always 1 while this node has a lease; the labels say which.',
    labels: ['subnet', 'subnet6', 'public_ip'],
    samples: ({ status: { lease } }) =>
      lease.subnet === null
        ? []
        : one(1, { subnet: lease.subnet, subnet6: lease.subnet6 ?? '', public_ip: lease.publicIp ?? '' }),
  },
  gauge(
    'tulle_lease_deadline_seconds',
    'Seconds until forwarding stops unless the lease is renewed; +Inf for a reservation.',
    ({ status: { lease } }) => (lease.reservation && !lease.fenced ? Number.POSITIVE_INFINITY : lease.secondsLeft),
  ),
  gauge(
    'tulle_lease_renewed_timestamp_seconds',
    'When the last acknowledged renewal of the lease was sent, in seconds since 1970.',
    ({ status: { lease }, nowMs }) =>
      lease.renewedSecondsAgo === null ? null : nowMs / 1000 - lease.renewedSecondsAgo,
  ),
  gauge('tulle_rules_degraded', 'Whether a traffic rule that was asked for cannot be written.', ({ status }) =>
    status.rules === null ? null : flag(status.rules.degraded !== undefined),
  ),
];

const DATA_PATH: readonly Metric[] = [
  gauge('tulle_data_path_up', 'Whether the data path runs; 0 while a lost one is made again.', ({ status }) =>
    flag(status.overlay?.running === true),
  ),
  gauge('tulle_overlay_mtu_bytes', 'The largest packet that pods may send.', ({ status }) => status.overlay?.mtu),
  {
    name: 'tulle_offload_enabled',
    type: 'gauge',
    help: 'Whether an offload is in use; tulle status says why it is not.',
    labels: ['offload'],
    samples: ({ status }) =>
      Object.entries(status.offloads).map(([offload, state]) => ({ labels: { offload }, value: flag(state.on) })),
  },
  direction('tulle_packets_total', 'Inner packets carried; a super-packet counts once.', 'packets'),
  direction('tulle_packet_bytes_total', 'Inner bytes carried.', 'bytes'),
  direction('tulle_super_packets_total', 'Carried packets that were super-packets (in: coalesced).', 'super-packets'),
  direction('tulle_datagrams_total', 'Datagrams sent to and taken from the underlay.', 'datagrams'),
  direction('tulle_trains_total', 'Trains of datagrams that crossed into or out of the kernel as one.', 'trains'),
  direction('tulle_bundled_packets_total', "Packets that travelled in another one's datagram.", 'bundled'),
  direction('tulle_batches_total', 'Reads that gave at least one packet (out) or datagram (in).', 'batches'),
  {
    name: 'tulle_batch_size',
    type: 'histogram',
    help: 'What one read gave: packets from the TUN (out), datagrams or trains of them from the underlay (in).',
    labels: ['direction'],
    samples: ({ status: { counters } }) =>
      ['egress', 'ingress'].map(direction => {
        const sizes = BATCH_BOUNDS.map(bound => counters[`${direction}-batches-${bound}`] ?? 0);
        const histogram = Histogram.of(BATCH_BOUNDS, sizes, counters[`${direction}-records`] ?? 0);
        return { labels: { direction }, histogram };
      }),
  },
  {
    name: 'tulle_fragments_total',
    type: 'counter',
    help: 'Datagrams that carry a fragment which this node made.',
    labels: [],
    samples: ({ status }) => one(status.counters['egress-fragments'] ?? 0),
  },
  {
    name: 'tulle_icmp_errors_total',
    type: 'counter',
    help: 'ICMP errors for the sender of a dropped packet: sent, or limited because too many were due at once.',
    labels: ['result'],
    samples: ({ status }) =>
      ['sent', 'limited'].map(result => ({ labels: { result }, value: status.counters[`icmp-${result}`] ?? 0 })),
  },
  {
    name: 'tulle_side_datagrams_total',
    type: 'counter',
    help: 'Probes, their replies and messages between nodes.',
    labels: ['direction'],
    samples: ({ status }) => [
      { labels: { direction: 'egress' }, value: status.counters['side-sent'] ?? 0 },
      { labels: { direction: 'ingress' }, value: status.counters['side-received'] ?? 0 },
    ],
  },
  {
    name: 'tulle_dropped_packets_total',
    type: 'counter',
    help: 'Packets that were discarded, by reason; a full queue is egress-queue-full.',
    labels: ['reason'],
    samples: ({ status }) =>
      Object.keys(DROP_REASONS).map(reason => ({ labels: { reason }, value: status.drops[reason] ?? 0 })),
  },
];

const REGISTRY: readonly Metric[] = [
  gauge('tulle_registry_up', 'Whether the registry is well, as tulle status says.', ({ status }) =>
    status.mode === 'cni-only' ? null : flag(status.registry.healthy),
  ),
  {
    name: 'tulle_registry_request_duration_seconds',
    type: 'histogram',
    help: 'How long the registry took to answer, whatever it answered.',
    labels: ['verb'],
    samples: ({ registry }) => [...registry.latency].map(([verb, histogram]) => ({ labels: { verb }, histogram })),
  },
  {
    name: 'tulle_registry_errors_total',
    type: 'counter',
    help: 'Requests that the registry refused, by code; taken, conflict and missing are answers, not faults.',
    labels: ['verb', 'code'],
    samples: ({ registry }) => pairs(registry.errors, 'verb', 'code'),
  },
  {
    name: 'tulle_registry_watch_interruptions_total',
    type: 'counter',
    help: 'How often the watch of the leases broke off.',
    labels: [],
    samples: ({ registry }) => one(registry.watchInterruptions),
  },
];

const PEERS: readonly Metric[] = [
  gauge('tulle_peers', 'Nodes that packets may go to.', ({ status }) => status.peers.length),
  gauge(
    'tulle_peers_silent',
    'Those that were probed and did not answer any more.',
    ({ status }) => status.peers.filter(peer => peer.silent).length,
  ),
  perPeer('tulle_peer_round_trip_seconds', 'The smoothed round trip of the probes to a peer.', peer =>
    peer.rttMs === null ? null : peer.rttMs / 1000,
  ),
  perPeer('tulle_peer_loss_ratio', 'The part of the last probes to a peer that got no answer, from 0 to 1.', peer =>
    peer.lossPct === null ? null : peer.lossPct / 100,
  ),
  perPeer('tulle_peer_last_heard_seconds', 'How long ago anything valid came from a peer.', peer =>
    peer.lastHeardMs === null ? null : peer.lastHeardMs / 1000,
  ),
  perPeer('tulle_peer_path_mtu_bytes', 'The largest outer packet that crosses to a peer.', peer => peer.pathMtu),
];

const CNI: readonly Metric[] = [
  {
    name: 'tulle_cni_operations_total',
    type: 'counter',
    help: 'Calls of the CNI plugin by command and by the code they ended with; 0 is success.',
    labels: ['command', 'code'],
    samples: ({ cni }) => pairs(cni.results, 'command', 'code'),
  },
  {
    name: 'tulle_cni_operation_duration_seconds',
    type: 'histogram',
    help: 'How long a call of the CNI plugin took, waiting for its turn included.',
    labels: ['command'],
    samples: ({ cni }) => [...cni.latency].map(([command, histogram]) => ({ labels: { command }, histogram })),
  },
  gauge('tulle_cni_operations_running', 'Calls that run now.', ({ status }) => status.cni?.running),
  gauge('tulle_cni_operations_waiting', 'Calls that wait for their turn.', ({ status }) => status.cni?.waiting),
];

const PROCESS: readonly Metric[] = [
  {
    name: 'process_cpu_seconds_total',
    type: 'counter',
    help: 'Processor time of tulled, all its threads.',
    labels: [],
    samples: input => one(input.process.cpuSeconds),
  },
  gauge(
    'process_start_time_seconds',
    'When tulled began, in seconds since 1970.',
    ({ process }) => process.startedAtSeconds,
  ),
  gauge('process_resident_memory_bytes', 'Memory of tulled.', ({ process }) => process.residentBytes),
  gauge('process_open_fds', 'Open descriptors of tulled.', ({ process }) => process.openFiles),
  gauge('process_max_fds', 'The most that it may have.', ({ process }) => process.mostFiles),
  gauge('nodejs_heap_size_used_bytes', 'The JavaScript heap in use.', ({ process }) => process.heapUsedBytes),
  gauge('nodejs_heap_size_total_bytes', 'The JavaScript heap.', ({ process }) => process.heapTotalBytes),
  gauge(
    'nodejs_external_memory_bytes',
    'Memory outside the heap that it owns.',
    ({ process }) => process.externalBytes,
  ),
  gauge(
    'nodejs_eventloop_lag_seconds',
    'How late the control plane was on the mean, since the last look.',
    ({ process }) => process.loopLagSeconds,
  ),
  gauge(
    'nodejs_eventloop_lag_max_seconds',
    'How late it was at worst, since the last look.',
    ({ process }) => process.worstLoopLagSeconds,
  ),
];

/** Every metric, by subject. */
export const METRICS: Readonly<Record<string, readonly Metric[]>> = {
  'The node': NODE,
  'The data path': DATA_PATH,
  'The registry': REGISTRY,
  'The peers': PEERS,
  CNI,
  'The process': PROCESS,
};

/** For lib/observe/prometheus.ts. */
export function metricFamilies(input: MetricsInput): Family[] {
  return Object.values(METRICS)
    .flat()
    .map(({ name, type, help, samples }) => ({ name, type, help, samples: samples(input) }));
}
