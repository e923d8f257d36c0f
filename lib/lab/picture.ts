/**
 * The picture of a running lab, as lines for a terminal of 92 columns. Pure: facts in, text out.
 */
export interface NodeFacts {
  readonly name: string;
  /** Underlay address and MTU of eth0. */
  readonly address: string;
  readonly underlayMtu: number;
  readonly subnet: string;
  /** When the lease ends, in seconds from now; null = never. */
  readonly leaseSeconds: number | null;
  readonly leaseKey: number;
  readonly device: { readonly name: string; readonly address: string; readonly mtu: number };
  readonly bridge: { readonly name: string; readonly address: string; readonly mtu: number };
  readonly port: number;
  readonly pid: number;
}

export interface PodFacts {
  readonly name: string;
  readonly node: string;
  readonly address: string;
  readonly mtu: number;
}

/** Round trips between two pods, in milliseconds. */
export interface PairFacts {
  readonly from: string;
  readonly to: string;
  readonly sent: number;
  readonly received: number;
  readonly medianMs: number | null;
  readonly leastMs: number | null;
}

export interface ThroughputFacts {
  readonly from: string;
  readonly to: string;
  readonly seconds: number;
  readonly gbps: number;
  readonly underlayGbps: number;
  /** The same stream with the other transports, when they were asked for. */
  readonly others: readonly { readonly transport: string; readonly gbps: number }[];
}

export interface LabFacts {
  readonly name: string;
  readonly registry: string;
  readonly transport: string;
  readonly underlay: string;
  readonly network: string;
  readonly seconds: number;
  readonly nodes: readonly NodeFacts[];
  readonly pods: readonly PodFacts[];
  readonly pairs: readonly PairFacts[];
  /** The same between the first two nodes, without the overlay. */
  readonly underlayPair: PairFacts;
  readonly tcp: ThroughputFacts;
  readonly hints: readonly string[];
}

const BOX = 44;
const INSIDE = BOX - 4;
const COLUMNS = 2;
const WIDTH = COLUMNS * BOX + 4;
/** A matrix of more pods than this is wider than the picture. */
const MATRIX_PODS = 8;
const BAR = 48;

export function picture(facts: LabFacts): string[] {
  const lines = ['', ` ${headline(facts)}`, ''];
  const mtu = Math.min(...facts.nodes.map(node => node.underlayMtu));
  lines.push(`   underlay ${facts.underlay} · MTU ${mtu} · pod network ${facts.network}`);
  for (let i = 0; i < facts.nodes.length; i += COLUMNS) lines.push(...rowOf(facts, facts.nodes.slice(i, i + COLUMNS)));
  lines.push('', ...roundTrips(facts), '', ...throughput(facts.tcp), '');
  if (facts.hints.length > 0)
    lines.push(' To look around, in another terminal:', ...facts.hints.map(hint => `   ${hint}`), '');
  return lines.map(line => line.trimEnd());
}

function headline(facts: LabFacts): string {
  const parts = [
    `lab "${facts.name}"`,
    `${count(facts.nodes.length, 'node')}, ${count(facts.pods.length, 'pod')}`,
    `registry ${facts.registry}`,
    `transport ${facts.transport}`,
    `up in ${facts.seconds.toFixed(1)} s`,
  ];
  return parts.join(' · ');
}

/** One row of nodes under a stretch of the underlay. */
function rowOf(facts: LabFacts, nodes: readonly NodeFacts[]): string[] {
  const bus = Array.from({ length: COLUMNS * (BOX + 2) }, () => '═');
  nodes.forEach((_, i) => {
    bus[i * (BOX + 2) + 2] = '╤';
  });
  const stems = nodes.map(node => `  │ eth0 ${node.address}`.padEnd(BOX));
  const boxes = nodes.map(node =>
    nodeBox(
      node,
      facts.pods.filter(pod => pod.node === node.name),
    ),
  );
  const height = Math.max(...boxes.map(box => box.length));
  const body = Array.from(
    { length: height },
    (_, row) => ` ${boxes.map(box => (box[row] ?? '').padEnd(BOX)).join('  ')}`,
  );
  return [` ${bus.join('').slice(0, WIDTH - 2)}`, ` ${stems.join('  ')}`, ...body];
}

function nodeBox(node: NodeFacts, pods: readonly PodFacts[]): string[] {
  const rows = [
    ['tulled', `UDP port ${node.port}`, `pid ${node.pid}`],
    ['lease', node.subnet, leaseText(node)],
    [node.device.name, node.device.address, `MTU ${node.device.mtu}`],
    [node.bridge.name, node.bridge.address, `MTU ${node.bridge.mtu}`],
  ];
  const title = `┌─┴─ ${node.name} `;
  const branches = pods.map((pod, i) => {
    const left = `  ${i === pods.length - 1 ? '└' : '├'}─ ${pod.name.padEnd(6)} ${pod.address}`;
    return left + `MTU ${pod.mtu}`.padStart(BOX - 2 - left.length);
  });
  return [
    `${title.padEnd(BOX - 1, '─')}┐`,
    ...rows.map(([name, what, right]) => {
      const left = `${name.padEnd(8)} ${what}`;
      return `│ ${left}${right.padStart(Math.max(INSIDE - left.length, right.length + 1))} │`;
    }),
    `└─${pods.length > 0 ? '┬' : '─'}${'─'.repeat(BOX - 4)}┘`,
    ...branches,
  ];
}

function roundTrips(facts: LabFacts): string[] {
  const { pairs } = facts;
  const sent = pairs.reduce((sum, pair) => sum + pair.sent, 0);
  const lost = sent - pairs.reduce((sum, pair) => sum + pair.received, 0);
  const plain = milliseconds(facts.underlayPair.medianMs);
  const echoes = `${sent} echoes, ${lost === 0 ? 'none' : lost} lost`;
  const title = ` Round trip, pod to pod: median in ms · ${echoes} · plain underlay ${plain}`;
  const names = [...new Set(pairs.flatMap(pair => [pair.from, pair.to]))];
  if (names.length === 2) {
    const [pair] = pairs;
    return [
      title,
      `   ${pair.from} → ${pair.to}   ${milliseconds(pair.medianMs)}   (least ${milliseconds(pair.leastMs)})`,
    ];
  }
  if (names.length <= MATRIX_PODS) return [title, ...matrix(names, pairs)];
  const sorted = [...pairs].sort((a, b) => (a.medianMs ?? Infinity) - (b.medianMs ?? Infinity));
  return [
    title,
    ...[sorted[0], sorted[sorted.length >> 1], sorted[sorted.length - 1]].map((pair, i) => {
      return `   ${['least  ', 'middle ', 'most   '][i]} ${milliseconds(pair.medianMs)}   ${pair.from} → ${pair.to}`;
    }),
  ];
}

function matrix(names: readonly string[], pairs: readonly PairFacts[]): string[] {
  const cells = new Map(pairs.map(pair => [`${pair.from} ${pair.to}`, milliseconds(pair.medianMs)]));
  const columns = names.slice(1);
  const rows = names.slice(0, -1);
  return [
    `   ${' '.repeat(7)}${columns.map(name => name.padStart(9)).join('')}`,
    ...rows.map(
      row => `   ${row.padEnd(7)}${columns.map(column => (cells.get(`${row} ${column}`) ?? '').padStart(9)).join('')}`,
    ),
  ];
}

function throughput(tcp: ThroughputFacts): string[] {
  const most = Math.max(tcp.gbps, tcp.underlayGbps);
  const bar = (gbps: number): string => '█'.repeat(Math.round((BAR * gbps) / most) || 1);
  const path = `${tcp.from} → ${tcp.to}`;
  const name = (text: string): string => text.padEnd(Math.max(path.length, 8) + 2);
  return [
    ` TCP, one stream, ${tcp.seconds} s each: the overlay is ${ratioText(tcp.gbps / tcp.underlayGbps)} of the plain underlay`,
    `   ${name(path)}${gigabits(tcp.gbps)}  ${bar(tcp.gbps)}`,
    ...tcp.others.map(other => `   ${name(`  ${other.transport}`)}${gigabits(other.gbps)}  ${bar(other.gbps)}`),
    `   ${name('underlay')}${gigabits(tcp.underlayGbps)}  ${bar(tcp.underlayGbps)}`,
  ];
}

const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;
const gigabits = (value: number): string => `${value.toFixed(value < 1 ? 3 : 2).padStart(6)} Gb/s`;
const ratioText = (ratio: number): string => (ratio < 0.1 ? ratio.toPrecision(2) : ratio.toFixed(2));
const milliseconds = (value: number | null): string => (value === null ? 'lost' : value.toFixed(3));

/** A key of ten digits leaves no room for the time. */
function leaseText(node: NodeFacts): string {
  const key = `key ${node.leaseKey}`;
  const both = `${lifetime(node.leaseSeconds)}, ${key}`;
  return 10 + node.subnet.length + both.length <= INSIDE ? both : key;
}

function lifetime(seconds: number | null): string {
  if (seconds === null) return 'no end';
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** Round trips over all pairs: what the JSON line says. */
export function summarise(pairs: readonly PairFacts[]): {
  sent: number;
  received: number;
  rttMs: number | null;
  minRttMs: number | null;
} {
  const medians = pairs.flatMap(pair => pair.medianMs ?? []).sort((a, b) => a - b);
  const least = pairs.flatMap(pair => pair.leastMs ?? []);
  return {
    sent: pairs.reduce((sum, pair) => sum + pair.sent, 0),
    received: pairs.reduce((sum, pair) => sum + pair.received, 0),
    rttMs: medians[medians.length >> 1] ?? null,
    minRttMs: least.length === 0 ? null : Math.min(...least),
  };
}
