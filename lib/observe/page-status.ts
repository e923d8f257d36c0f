/** What `GET /status` of a daemon says, as the page shows it. Whatever is missing there is taken from what was known before. */
import type { LinkRate, NetworkView, NodeView, PeerView } from './microscope/model.ts';

type Json = Record<string, unknown>;

const objectOf = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {});
const textOf = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);
const numberOf = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isFinite(value) ? value : undefined;

export function nodeOfStatus(status: unknown, base: NodeView, now = Date.now()): NodeView {
  const document = objectOf(status);
  const lease = objectOf(document['lease']);
  const overlay = objectOf(document['overlay']);
  const key = textOf(lease['key']);
  const left = numberOf(lease['secondsLeft']);
  const transport = textOf(overlay['transport']);
  const isFenced = lease['fenced'] === true;
  const healthy = document['healthy'] !== false && document['ready'] !== false && !isFenced;
  return {
    ...base,
    address: textOf(lease['publicIp']) ?? base.address,
    port: numberOf(overlay['port']) ?? base.port,
    subnet: textOf(lease['subnet']) ?? base.subnet,
    ...(textOf(lease['subnet6']) !== undefined && { subnet6: textOf(lease['subnet6'])! }),
    leaseKey: key === undefined ? base.leaseKey : Number.parseInt(key, 16),
    leaseEndsAtMs: left === undefined ? base.leaseEndsAtMs : now + left * 1000,
    healthy,
    note: healthy ? '' : troubleOf(document, isFenced),
    device: {
      name: textOf(overlay['device']) ?? base.device.name,
      mtu: numberOf(overlay['mtu']) ?? base.device.mtu,
    },
    transport: transport ?? base.transport,
    rates: ratesOf(document),
    drops: dropCountsOf(status),
  };
}

/** What the data path counted, a second: inner bytes, and datagrams. Where links are read, those figures take its place. */
function ratesOf(document: Json): Record<string, LinkRate> {
  const rates = objectOf(document['rates']);
  const of = (name: string): number => numberOf(rates[name]) ?? 0;
  if (Object.keys(rates).length === 0) return {};
  return {
    eth0: {
      receivedBytes: of('ingress-bytes'),
      sentBytes: of('egress-bytes'),
      receivedPackets: of('ingress-datagrams'),
      sentPackets: of('egress-datagrams'),
    },
  };
}

/** The ranges and the registry, for a page that knows nothing else. */
export function networkOfStatus(status: unknown): Pick<NetworkView, 'network' | 'underlay' | 'registry'> {
  const document = objectOf(status);
  return {
    network: textOf(objectOf(document['network'])['network']) ?? '',
    underlay: '',
    registry: textOf(objectOf(document['registry'])['kind']) ?? '',
  };
}

/** The peers as nodes: what their leases and the probes tell. */
export function peerNodesOfStatus(status: unknown, self: NodeView): NodeView[] {
  const { peers } = objectOf(status);
  if (!Array.isArray(peers)) return [];
  return peers.map(objectOf).map(peer => {
    const endpoint = textOf(peer['endpoint']) ?? '';
    const cut = endpoint.lastIndexOf(':');
    const silent = peer['silent'] === true;
    return {
      name: textOf(peer['node']) ?? endpoint,
      address: endpoint.slice(0, cut).replace(/^\[|\]$/g, ''),
      port: Number(endpoint.slice(cut + 1)) || 0,
      subnet: textOf(peer['subnet']) ?? '',
      leaseKey: Number.parseInt(textOf(peer['leaseKey']) ?? '0', 16),
      leaseEndsAtMs: null,
      healthy: !silent,
      note: silent ? 'it does not answer probes' : '',
      device: { name: self.device.name, mtu: 0 },
      underlayMtu: numberOf(peer['pathMtu']) ?? 0,
      transport: '',
      rates: {},
      drops: {},
    };
  });
}

/** Drops by reason, those that happened. */
export function dropCountsOf(status: unknown): Record<string, number> {
  const drops = objectOf(objectOf(status)['drops']);
  return Object.fromEntries(Object.entries(drops).filter(([, count]) => (numberOf(count) ?? 0) > 0)) as Record<
    string,
    number
  >;
}

export function peersOfStatus(status: unknown, node: string): PeerView[] {
  const { peers } = objectOf(status);
  if (!Array.isArray(peers)) return [];
  return peers.map(objectOf).map(peer => ({
    node,
    peer: textOf(peer['node']) ?? textOf(peer['endpoint']) ?? '?',
    endpoint: textOf(peer['endpoint']) ?? '',
    subnet: textOf(peer['subnet']) ?? '',
    format: textOf(peer['format']) ?? '',
    rttMs: numberOf(peer['rttMs']) ?? null,
    lossPct: numberOf(peer['lossPct']) ?? null,
    pathMtu: numberOf(peer['pathMtu']) ?? null,
    silent: peer['silent'] === true,
  }));
}

function troubleOf(document: Json, isFenced: boolean): string {
  const { problems } = document;
  const first = Array.isArray(problems)
    ? problems.map(objectOf).find(problem => problem['severity'] === 'error')
    : undefined;
  const text = textOf(first?.['text']);
  if (text !== undefined) return text;
  if (isFenced) return 'its lease ran out without a renewal: it may not forward';
  const waiting = textOf(document['waitingFor']);
  return waiting === undefined ? 'it says that it is not well' : `not ready: waiting for ${waiting}`;
}
