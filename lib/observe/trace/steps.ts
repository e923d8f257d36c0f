/** The steps of a story, one function each: what a person who learns should read there, and the same as facts. */

import { DROP_REASONS } from '../../datapath/counters.ts';
import { printEndpoint } from '../../datapath/peers.ts';
import { leaseKeyOf, nodeIdOf, printSubnets } from '../../lease/lease.ts';
import { formatCidr4, formatCidr6, subnetIndex } from '../../wire/cidr.ts';
import { parseAddress4 } from '../../wire/ip4.ts';
import { describePacket } from '../../wire/print.ts';
import { HEADER_BYTES } from '../../wire/tulle.ts';
import { UDP_HEADER_BYTES } from '../../wire/udp.ts';
import { hostOf, type Lookup, outerRoute } from './lookup.ts';
import { buildPacket, type TraceQuestion } from './packet.ts';
import type { PeerFact, TraceResult, TraceState } from './state.ts';
import { OTHER_REASONS, type Step, type StopReason, type Story } from './story.ts';

const hex8 = (key: number): string => (key >>> 0).toString(16).padStart(8, '0');
const isSix = (address: string): boolean => address.includes(':');
const nodeOf = ({ lease, peer }: PeerFact): string => (lease && nodeIdOf(lease)) ?? printEndpoint(peer);
const ms = (value: number): string => `${value < 10 ? value.toFixed(2) : Math.round(value)} ms`;

export function packetStep(question: TraceQuestion, { node, format }: TraceState, result?: TraceResult): Step {
  const { size, ttl } = question;
  // As it was sent, but for the zeros at its end; or as it would be.
  const bytes = new Uint8Array(size);
  if (result === undefined) bytes.set(buildPacket(question, () => 1).bytes);
  else bytes.set(result.head.subarray(format === 'tulle' ? HEADER_BYTES : 0).subarray(0, size));
  const shown = describePacket(bytes, 0, size);
  return {
    name: 'packet',
    node,
    verdict: 'pass',
    title: `a packet of ${size} bytes from ${question.source} to ${question.destination}`,
    lines: [shown, `${isSix(question.source) ? 'hop limit' : 'TTL'} ${ttl}; it must not be fragmented`],
    facts: { ...question },
  };
}

export function kernelStep(
  { destination, size }: TraceQuestion,
  { node, device, mtu, routeTo }: TraceState,
  stops: 'kernel-route' | 'kernel-mtu' | undefined,
): Step {
  const route = routeTo(destination);
  const facts = { route: route ?? null, device, mtu, reason: stops ?? null };
  const via = route?.gateway === undefined ? '' : ` via ${route.gateway}`;
  const where =
    route === undefined
      ? `the node's kernel has no route to ${destination}`
      : `the node's kernel routes ${destination} to ${route.isLocal ? 'itself' : `${route.link}${via}`}`;
  if (stops === 'kernel-route') {
    const hint = `tulle sees what is routed to ${device}, and nothing else`;
    return { name: 'kernel', node, verdict: 'stop', title: OTHER_REASONS[stops], lines: [where, hint], facts };
  }
  if (stops === 'kernel-mtu') {
    const lines = [
      where,
      `${size} bytes > ${mtu}, the MTU of ${device}`,
      'a pod is told by ICMP, and sends less at once',
    ];
    return { name: 'kernel', node, verdict: 'stop', title: OTHER_REASONS[stops], lines, facts };
  }
  const lines = [where, `${size} bytes ≤ ${mtu}, the MTU of ${device}`, 'tulled reads it from the TUN'];
  return {
    name: 'kernel',
    node,
    verdict: 'pass',
    title: `it is routed into the overlay's device, ${device}`,
    lines,
    facts,
  };
}

export function fenceStep({ node }: TraceState, fenced: boolean): Step {
  return {
    name: 'fence',
    node,
    verdict: fenced ? 'stop' : 'pass',
    title: fenced ? DROP_REASONS['egress-fenced'] : 'this node holds its lease, so it may send',
    lines: [],
    facts: { fenced },
  };
}

export function lookupStep({ destination }: TraceQuestion, state: TraceState, lookup: Lookup): Step {
  const { node, network } = state;
  const lines = subnetLines(destination, state);
  const base = { name: 'lookup' as const, node, lines };
  switch (lookup.kind) {
    case 'peer': {
      const { peer, lease } = lookup.fact;
      const revisions =
        lease === undefined
          ? []
          : [
              `the lease was made by revision ${lease.createRevision} of the registry and written last by ${lease.modRevision}`,
            ];
      return {
        ...base,
        verdict: 'pass',
        title: `${printSubnets(peer)} is leased to ${nodeOf(lookup.fact)}`,
        lines: [...lines, ...revisions, `its lease key is ${hex8(peer.key)}`],
        facts: {
          subnet: formatCidr4(peer.subnet),
          subnet6: peer.subnet6 === undefined ? null : formatCidr6(peer.subnet6),
          node: nodeOf(lookup.fact),
          createRevision: lease?.createRevision ?? null,
          modRevision: lease?.modRevision ?? null,
          key: hex8(lease === undefined ? peer.key : leaseKeyOf(lease)),
        },
      };
    }
    case 'no-lease':
      return stopAt(base, 'egress-no-lease', ['is that node up, and has its lease ended? "tulle lease log" remembers']);
    case 'own':
      return stopAt(base, 'egress-own-subnet', [`our own subnet is ${printSubnets(state.own)}`]);
    case 'outside':
      return stopAt(base, 'egress-outside-network', [`the pod network is ${formatCidr4(network.network)}`]);
    case 'not-ipv4':
      return stopAt(base, 'egress-not-ipv4', []);
    case 'link-local':
      return stopAt(base, 'egress-link-local', []);
  }
}

function stopAt(base: Pick<Step, 'name' | 'node' | 'lines'>, reason: keyof typeof DROP_REASONS, more: string[]): Step {
  return { ...base, verdict: 'stop', title: DROP_REASONS[reason], lines: [...base.lines, ...more], facts: { reason } };
}

/** The arithmetic of the route table: one subtraction, one division. */
function subnetLines(destination: string, { network }: TraceState): string[] {
  const to = parseAddress4(destination);
  if (to === undefined) {
    const { network6, subnetLength6 } = network;
    return network6 === undefined
      ? []
      : [
          `${formatCidr6(network6)} is cut into /${subnetLength6}: bits ${network6.prefixLength} to ${subnetLength6} are the subnet's number`,
        ];
  }
  const index = subnetIndex(to, network.network, network.subnetLength);
  if (index < 0) return [];
  const [first] = formatCidr4(network.network).split('/');
  const size = 2 ** (32 - network.subnetLength);
  return [`(${destination} − ${first}) ÷ ${size} = subnet number ${index}: one load from the route table`];
}

export function ttlStep({ ttl, source }: TraceQuestion, { node }: TraceState, ends: boolean): Step {
  const what = isSix(source) ? 'hop limit' : 'TTL';
  return {
    name: 'ttl',
    node,
    verdict: ends ? 'stop' : 'pass',
    title: ends
      ? `its ${what} ends here: the sender gets a Time Exceeded`
      : `${what} ${ttl} − 1 = ${ttl - 1}: the overlay is one hop`,
    lines: [],
    facts: { before: ttl, after: ttl - 1 },
  };
}

export function peerStep({ node }: TraceState, fact: PeerFact): Step {
  const { peer, health } = fact;
  const lines: string[] = [];
  if (health === undefined) lines.push('it is not probed');
  else if (health.silent) lines.push('it is SILENT: nothing has come from it for some time');
  else if (health.rttMs !== null) {
    lines.push(`round trip ${ms(health.rttMs)}, loss ${Math.round(health.lossPct ?? 0)} % of the last probes`);
  }
  if (health?.lastHeardMs != null) lines.push(`heard ${ms(health.lastHeardMs)} ago`);
  return {
    name: 'peer',
    node,
    verdict: 'pass',
    title: `the peer ${nodeOf(fact)} is at ${printEndpoint(peer)}`,
    lines,
    facts: { node: nodeOf(fact), endpoint: printEndpoint(peer), health: health ?? null },
  };
}

export function widthStep(
  { size }: TraceQuestion,
  state: TraceState,
  fact: PeerFact,
  largest: number,
  tooBig: boolean,
): Step {
  const { mtu, overhead, format, underlay, node } = state;
  const ip = overhead - UDP_HEADER_BYTES - (format === 'tulle' ? HEADER_BYTES : 0);
  // When the kernel refused what we thought would fit, the data path has learnt it meanwhile.
  const narrow = tooBig && size <= largest ? Math.min(fact.limit, size - 1) : largest;
  const width = narrow + overhead;
  const from = narrow >= mtu ? "the underlay's MTU" : 'the width of the path to this peer, learnt';
  const row = (sign: string, count: number, what: string): string => `${(sign + count).padStart(6)}  ${what}`;
  const lines = [
    row('', width, from),
    row('−', ip, `outer IPv${underlay}`),
    row('−', UDP_HEADER_BYTES, 'outer UDP'),
    ...(format === 'tulle' ? [row('−', HEADER_BYTES, 'tulle header')] : []),
    row('=', narrow, 'the largest inner packet'),
    `${size} ${size > narrow ? '>' : '≤'} ${narrow}`,
  ];
  return {
    name: 'width',
    node,
    verdict: tooBig ? 'stop' : 'pass',
    title: tooBig
      ? `it is too long for the way to this peer: its sender is told, with MTU ${narrow}`
      : 'it fits the way to this peer',
    lines,
    facts: { pathMtu: width, overhead, largest: narrow, size },
  };
}

export function outerStep({ size }: TraceQuestion, state: TraceState, fact: PeerFact, result?: TraceResult): Step {
  const { key, address, port, overhead, format, underlay, node } = state;
  const ipBytes = underlay === 4 ? 20 : 40;
  const total = size + overhead;
  const fields: Record<string, unknown> = {
    version: underlay,
    source: address,
    destination: hostOf(fact),
    length: total,
    dontFragment: state.transport === 'dgram' ? null : true,
    protocol: 17,
    sourcePort: port,
    destinationPort: fact.peer.port,
    udpLength: total - ipBytes,
  };
  const lines = [
    `outer IPv${underlay}: ${fields['source']} → ${fields['destination']}, ${total} bytes, protocol 17, not to be fragmented`,
    `outer UDP: port ${port} → ${fact.peer.port}, ${total - ipBytes} bytes, checksum by the kernel`,
  ];
  if (format === 'tulle') {
    const number = result?.id.toString(16).padStart(12, '0');
    lines.push(
      `tulle header: version 1, kind 6 (traced packet${result === undefined ? '' : ` number ${number}`}; else it is kind 0), flags 0, lease key ${hex8(key)}`,
    );
    if (result !== undefined) lines.push(`as sent: ${hexOf(result.head.subarray(0, HEADER_BYTES))}`);
    fields['tulle'] = { version: 1, kind: 6, flags: 0, key: hex8(key), trace: number ?? null };
  } else lines.push("no header of tulle's: flannel's format is the bare packet");
  return { name: 'outer', node, verdict: 'pass', title: `it is wrapped in ${overhead} bytes`, lines, facts: fields };
}

const hexOf = (bytes: Uint8Array): string => Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join(' ');

export function sendStep(state: TraceState, fact: PeerFact, result?: TraceResult): { step: Step; reason?: StopReason } {
  const host = hostOf(fact);
  const route = outerRoute(state, fact);
  const via = route?.gateway === undefined ? '' : ` via ${route.gateway}`;
  const where =
    route === undefined ? `the kernel has no route to ${host}` : `the kernel sends it by ${route.link}${via}`;
  const reason = result === undefined ? (route === undefined ? 'egress-send-failed' : undefined) : result.drop;
  const base = { name: 'send' as const, node: state.node, facts: { route: route ?? null, reason: reason ?? null } };
  if (reason === undefined) {
    return {
      step: {
        ...base,
        verdict: 'pass',
        title: result === undefined ? 'it leaves this node' : 'it left this node',
        lines: [where],
      },
    };
  }
  return { step: { ...base, verdict: 'stop', title: DROP_REASONS[reason], lines: [where] }, reason };
}

export type FarForesight = Pick<Story, 'outcome' | 'where' | 'reason'>;

/** Why a far node says nothing: it tells only who may ask. */
const UNTOLD = [
  'the datagram was lost on the way: a link, a firewall, NAT',
  'ingress-unknown-sender: the far node has not seen our lease, or we come from another address',
  'ingress-stale-key, and its notice was lost: it knows an older or a newer lease of ours',
  'ingress-wrong-format, ingress-wrong-version, ingress-unknown-kind: it is another version, or has another net-conf',
  'ingress-fenced: its own lease ran out',
];

export function farStep(
  state: TraceState,
  fact: PeerFact,
  result: TraceResult | undefined,
  foresight: FarForesight,
): { step: Step } & FarForesight {
  const node = nodeOf(fact);
  const base = { name: 'far' as const, node };
  const report = result?.far;
  if (report === undefined) {
    const verdict = foresight.outcome === 'delivered' ? 'pass' : foresight.outcome === 'stopped' ? 'stop' : 'open';
    return {
      step: { ...base, verdict, ...foreseen(foresight, state), facts: { reason: foresight.reason ?? null } },
      ...foresight,
    };
  }
  if (report.kind === 'seen') {
    const { drop, length, ttl, device, link, afterMs } = report;
    const facts = { ...report, drop: drop ?? null, link: link ?? null };
    const came = `it came with ${length} bytes and TTL ${ttl}; the report took ${ms(afterMs)}`;
    if (drop !== undefined) {
      const step: Step = {
        ...base,
        verdict: 'stop',
        title: DROP_REASONS[drop],
        lines: [came, `counted as ${drop}`],
        facts,
      };
      return { step, outcome: 'stopped', where: 'there', reason: drop };
    }
    const next =
      link === undefined
        ? 'its kernel has no route to the destination'
        : link === device
          ? `its kernel routes the destination back to ${device}: no bridge for its pods`
          : `its kernel routes it to ${link}`;
    const title = `${report.node} accepted it and wrote it to ${device}`;
    return { step: { ...base, verdict: 'pass', title, lines: [came, next], facts }, outcome: 'delivered' };
  }
  if (report.kind === 'refused') {
    const { drop } = report;
    const lines = [
      `its notice took ${ms(report.afterMs)}; counted there as ${drop}`,
      'it knows an older or a newer lease of ours: does it reach its registry?',
    ];
    const step: Step = { ...base, verdict: 'stop', title: DROP_REASONS[drop], lines, facts: { ...report } };
    return { step, outcome: 'stopped', where: 'there', reason: drop };
  }
  if (report.kind === 'not-asked') {
    const title = "flannel's format has no way to ask the far node";
    return { step: { ...base, verdict: 'open', title, lines: [], facts: { ...report } }, outcome: 'unknown' };
  }
  const answers = report.kind === 'not-seen';
  return {
    step: {
      ...base,
      verdict: 'stop',
      title: answers ? `${node} answers, but this packet never came` : `${node} does not answer`,
      lines: answers
        ? ['it was lost on the way, or longer than the way is wide', 'or dropped there as ingress-limited']
        : UNTOLD,
      facts: { ...report },
    },
    outcome: 'stopped',
    where: 'underway',
    reason: 'lost',
  };
}

function foreseen({ outcome, reason }: FarForesight, { format }: TraceState): Pick<Step, 'title' | 'lines'> {
  if (reason === 'lost') return { title: 'it will probably not arrive: this peer is silent', lines: [] };
  if (reason !== undefined)
    return { title: `it will be refused: ${explainReason(reason)}`, lines: [`counted there as ${reason}`] };
  if (outcome === 'unknown')
    return { title: `what becomes of it cannot be known here`, lines: [`the format is ${format}`] };
  return {
    title: 'it will be checked and written to the TUN there',
    lines: ['sender, lease key, inner source and inner destination'],
  };
}

export function explainReason(reason: StopReason): string {
  return reason in OTHER_REASONS
    ? OTHER_REASONS[reason as keyof typeof OTHER_REASONS]
    : DROP_REASONS[reason as keyof typeof DROP_REASONS];
}

export function answerStep({ destination, protocol }: TraceQuestion, fact: PeerFact, { answers }: TraceResult): Step {
  const reached = answers.some(answer => answer.reached);
  const none =
    protocol === 'udp'
      ? 'a UDP datagram need not be answered'
      : 'nobody there has that address, or something between it and its node drops the packet or the answer';
  const title = reached
    ? `${destination} answers`
    : answers.length > 0
      ? `an answer came, not from ${destination}`
      : `no answer of ${destination} came within a second`;
  return {
    name: 'answer',
    node: nodeOf(fact),
    verdict: reached ? 'pass' : 'open',
    title,
    lines: answers.length === 0 ? [none] : answers.map(({ text, afterMs }) => `after ${ms(afterMs)}: ${text}`),
    facts: { answers: answers.map(answer => ({ ...answer })) },
  };
}
