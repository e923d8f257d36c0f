/** `GET /status`: this daemon's status document, and what it takes to know rates. */
import { nodeIdOf } from '../lease/lease.ts';
import type { ControlRoutes } from '../observe/control.ts';
import { type OverlayInput, type PeerMeasure, type StatusDocument, statusDocument } from '../observe/status.ts';
import type { Undo } from '../util/undo.ts';
import { version } from '../util/version.ts';
import { formatCidr4, formatCidr6, type Subnet4 } from '../wire/cidr.ts';
import type { Observed } from './observed.ts';
import { registryName } from './registry.ts';

const SAMPLE_MS = 1000;

export function observeStatus(observed: Observed, routes: ControlRoutes, undo: Undo): void {
  const { clock } = observed.parts;
  const { rates } = observed;
  const sample = setInterval(() => {
    const { overlay } = observed;
    if (overlay !== undefined) rates.add(clock.monotonicMs(), { ...overlay.counters(), ...overlay.drops() });
  }, SAMPLE_MS);
  sample.unref();
  undo.push('the look at the rates', () => clearInterval(sample));
  observed.summary = () => summaryOf(statusOf(observed));
  routes.add('GET', '/status', () => ({ json: statusOf(observed) }));
}

/** What other nodes are told when they ask for the cluster's status: it must fit a message of a few KB. */
function summaryOf({
  node,
  version,
  healthy,
  ready,
  waitingFor,
  problems,
  lease,
  peers,
  drops,
}: StatusDocument): object {
  return {
    node,
    version,
    healthy,
    ready,
    waitingFor,
    problems,
    lease,
    peers: { known: peers.length, silent: peers.filter(peer => peer.silent).map(peer => peer.subnet) },
    drops: Object.fromEntries(Object.entries(drops).filter(([, count]) => count > 0)),
  };
}

export function statusOf(observed: Observed): StatusDocument {
  const { options, parts, network, manager, overlay, peers, cni, meters } = observed;
  const nodes = new Map(peers?.peers.map(lease => [lease.subnet.address, nodeIdOf(lease)]));
  return statusDocument({
    version: version(),
    uptimeMs: parts.clock.monotonicMs() - observed.startedMs,
    pid: process.pid,
    node: observed.nodeId,
    cniOnly: options.cniOnly,
    waitingFor: observed.waitingFor,
    network: network && {
      network: formatCidr4(network.config.network),
      ...(network.config.network6 && { network6: formatCidr6(network.config.network6) }),
      backend: network.backend.type,
    },
    lease: manager?.status,
    ttlSeconds: options.leaseTtlSeconds,
    registry: options.cniOnly
      ? undefined
      : {
          kind: options.registry.kind,
          where: registryName(options.registry),
          endpoints: options.registry.kind === 'etcd' ? options.registry.endpoints.map(withoutUser) : [],
          health: meters.registry.health,
        },
    overlay: overlay && overlayInput(overlay),
    nodeOf: peer => nodes.get(peer.subnet.address),
    measureOf: ({ subnet }) => measureOf(observed, subnet),
    rates: overlay && observed.rates.get(),
    rules: observed.rules?.state(),
    cni: cni && { results: meters.cni.results, ...cni.load() },
  });
}

function measureOf({ probes }: Observed, subnet: Subnet4): PeerMeasure | undefined {
  const measure = probes?.of(subnet);
  const lastHeardMs = measure?.lastHeardMs ?? probes?.lastHeardMs(subnet) ?? null;
  const nothing = { rttMs: null, lossPct: null, pathMtu: null, silent: false };
  return { ...(measure ?? nothing), lastHeardMs };
}

/** The options refuse user info in a URL; this holds also where they should not any more. */
const withoutUser = (url: string): string => url.replace(/\/\/[^/]*@/, '//');

function overlayInput(overlay: NonNullable<Observed['overlay']>): OverlayInput {
  const { device, mtu, port } = overlay;
  return { device, mtu, port, ...overlay.facts(), drops: overlay.drops(), counters: overlay.counters() };
}
