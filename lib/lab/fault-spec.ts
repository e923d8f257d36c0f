/**
 * Faults of the lab's underlay, as words: what a person asks for, checked against the lab, and the rules that follow from
 * it for each link. Pure.
 *
 * A fault lies between two places, "node1-node2" or "node1-registry", or on everything that a node sends and receives,
 * "node1", or between every pair of nodes. Frames are recognised by their MAC addresses (fault-frame.ts), so a rule is
 * kept by one link only: that of the place that is named first.
 */
import { formatAddress4, parseAddress4 } from '../wire/ip4.ts';
import { usageError } from './options.ts';
import { type LabRegistry, pairsOf, UNDERLAY } from './plan.ts';

/** In the order in which one frame meets them. */
export const FAULT_KINDS = ['partition', 'loss', 'mtu', 'nat', 'duplicate', 'delay', 'reorder'] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];
/** Seen from the place that is named first. */
export const DIRECTIONS = ['both', 'out', 'in'] as const;
export type FaultDirection = (typeof DIRECTIONS)[number];
/**
 * What becomes of datagrams that are too long: `silent` nobody hears of it, a black hole; `icmp` as a router does it, with
 * Fragmentation Needed, or in fragments; `link` the node's own interface has the MTU, and its kernel knows.
 */
export const MTU_MODES = ['silent', 'icmp', 'link'] as const;
export type MtuMode = (typeof MTU_MODES)[number];

/** The far end of "node1-registry": the switch with an etcd or API server on it, or the directory of leases. */
export const REGISTRY_PLACE = 'registry';

/** What addFault takes; each kind has its own of the later ones. */
export interface FaultSpec {
  readonly kind: FaultKind;
  /** "node1", "node1-node2", "node1-registry"; undefined: between every pair of nodes. */
  readonly where?: string | undefined;
  readonly direction?: FaultDirection | undefined;
  /** delay: added to each frame, 0 to 10,000; reorder: how long a frame is held back (5). */
  readonly ms?: number | undefined;
  /** delay: up to so much more or less. */
  readonly jitterMs?: number | undefined;
  /** loss, duplicate, reorder: so many of a hundred frames, 0.01 to 100. */
  readonly percent?: number | undefined;
  /** mtu: the longest IP packet that passes, 576 to 1500. */
  readonly bytes?: number | undefined;
  readonly mode?: MtuMode | undefined;
  /** nat: the address that the node's packets come from (a free one of the underlay). */
  readonly address?: string | undefined;
  /** Of the pseudo-random choices; two runs with one seed choose alike. */
  readonly seed?: number | undefined;
}

/** What a lab has, for the checks. */
export interface FaultPlaces {
  readonly nodes: readonly string[];
  readonly registry: LabRegistry;
}

/** A spec whose every question is answered. */
export interface CheckedSpec {
  readonly kind: FaultKind;
  readonly where: string | null;
  readonly direction: FaultDirection;
  readonly ms: number;
  readonly jitterMs: number;
  readonly percent: number;
  readonly bytes: number;
  readonly mode: MtuMode;
  readonly address: string | null;
  readonly seed: number;
}

/** One rule on one link. */
export interface Rule extends CheckedSpec {
  readonly id: string;
  /** Whose frames: null for everybody's, REGISTRY_PLACE for the switch. */
  readonly peer: string | null;
}

const TARGET_WORDS: Record<FaultKind, readonly (keyof FaultSpec)[]> = {
  partition: [],
  loss: ['percent', 'seed'],
  mtu: ['bytes', 'mode'],
  nat: ['address'],
  duplicate: ['percent', 'seed'],
  delay: ['ms', 'jitterMs', 'seed'],
  reorder: ['percent', 'ms', 'seed'],
};
const OPTION_OF: Partial<Record<keyof FaultSpec, string>> = { jitterMs: 'jitter' };
const OF_ALL: readonly (keyof FaultSpec)[] = ['kind', 'where', 'direction'];
const LONGEST_MS = 10_000;
/** What IPv4 asks of every link that people use: RFC 1122's 576. */
const LEAST_MTU = 576;

function within(name: string, value: number | undefined, least: number, most: number): number {
  if (value !== undefined && Number.isFinite(value) && value >= least && value <= most) return value;
  throw usageError(`--${name} is a number from ${least} to ${most}${value === undefined ? '' : `, not ${value}`}`);
}

/** Answers every open question of a spec, or says in one line what is wrong with it. `randomSeed` is used where none is given. */
export function checkSpec(spec: FaultSpec, places: FaultPlaces, randomSeed: number): CheckedSpec {
  const { kind } = spec;
  if (!FAULT_KINDS.includes(kind)) throw usageError(`a fault is one of ${FAULT_KINDS.join(', ')}, not "${kind}"`);
  for (const [name, value] of Object.entries(spec) as [keyof FaultSpec, unknown][]) {
    if (value !== undefined && !OF_ALL.includes(name) && !TARGET_WORDS[kind].includes(name))
      throw usageError(`a fault of kind ${kind} does not take --${OPTION_OF[name] ?? name}`);
  }
  const where = checkWhere(spec.where, places);
  const direction = spec.direction ?? 'both';
  if (where === undefined && direction !== 'both')
    throw usageError(`--direction ${direction} needs two places, for example node1-node2`);
  const takesPercent = TARGET_WORDS[kind].includes('percent');
  const checked: CheckedSpec = {
    kind,
    where: where ?? null,
    direction,
    ms: kind === 'delay' ? within('ms', spec.ms, 0, LONGEST_MS) : within('ms', spec.ms ?? 5, 1, LONGEST_MS),
    jitterMs: within('jitter', spec.jitterMs ?? 0, 0, LONGEST_MS),
    percent: takesPercent ? within('percent', spec.percent, 0.01, 100) : 0,
    bytes: kind === 'mtu' ? within('bytes', spec.bytes, LEAST_MTU, UNDERLAY.mtu) : 0,
    mode: spec.mode ?? 'silent',
    address: null,
    seed: within('seed', spec.seed ?? randomSeed, 0, 0xffff_ffff) >>> 0,
  };
  if (!MTU_MODES.includes(checked.mode)) throw usageError(`--mode is one of ${MTU_MODES.join(', ')}`);
  if (!DIRECTIONS.includes(direction)) throw usageError(`--direction is one of ${DIRECTIONS.join(', ')}`);
  if (kind === 'nat') return { ...checked, direction: 'both', address: checkNat(spec, where, places) };
  if (kind === 'mtu' && checked.mode === 'link') checkLinkMtu(where, direction);
  if (where?.endsWith(`-${REGISTRY_PLACE}`)) checkRegistry(kind, direction, places);
  return checked;
}

/** "node1" or "node1-node2" of this lab. */
function checkWhere(where: string | undefined, { nodes }: FaultPlaces): string | undefined {
  if (where === undefined) return undefined;
  const [first, second, ...more] = where.split('-');
  const known = nodes.includes(first) && (second === undefined || second === REGISTRY_PLACE || nodes.includes(second));
  if (known && more.length === 0 && first !== second) return where;
  const names = nodes.slice(0, 4).join(', ');
  throw usageError(
    `"${where}" is not a place of this lab: say a node (${names}), two nodes (${nodes[0]}-${nodes[1]}), or ${nodes[0]}-registry`,
  );
}

function checkNat(spec: FaultSpec, where: string | undefined, { nodes }: FaultPlaces): string {
  if (where === undefined)
    throw usageError('nat needs the node whose packets get another address: node1, or node1-node2');
  if (spec.direction !== undefined && spec.direction !== 'both')
    throw usageError('nat has no --direction: answers must find their way back');
  const base = parseAddress4(UNDERLAY.network.split('/')[0])!;
  const nth = nodes.indexOf(where.split('-')[0]);
  const address = spec.address === undefined ? base + 200 + (nth % 50) : parseAddress4(spec.address);
  const host = (address ?? 0) - base;
  if (address === undefined || host < 1 || host > 253 || host <= nodes.length)
    throw usageError(`--address is a free address of the underlay ${UNDERLAY.network}, not "${spec.address}"`);
  return formatAddress4(address);
}

function checkLinkMtu(where: string | undefined, direction: FaultDirection): void {
  if (where === undefined || where.includes('-') || direction !== 'both')
    throw usageError(
      '--mode link sets the MTU of one node\'s interface: say which, for example "mtu node1 --mode link"',
    );
}

function checkRegistry(kind: FaultKind, direction: FaultDirection, { registry }: FaultPlaces): void {
  if (registry !== 'file' || (kind === 'partition' && direction === 'both')) return;
  throw usageError('the file registry is a directory, no network: only "partition NODE-registry" can cut it off');
}

/** Which faults need no relay: the kernel or the file system does them. */
export function isDirect(spec: Pick<CheckedSpec, 'kind' | 'where' | 'mode'>, { registry }: FaultPlaces): boolean {
  if (spec.kind === 'mtu' && spec.mode === 'link') return true;
  return registry === 'file' && spec.where?.endsWith(`-${REGISTRY_PLACE}`) === true;
}

/** The rules of each link; links without a rule are absent. Faults that need no relay are left out. */
export function rulesOf(faults: readonly (CheckedSpec & { id: string })[], places: FaultPlaces): Map<string, Rule[]> {
  const rules = new Map<string, Rule[]>();
  const add = (link: string, rule: Rule): void => void rules.set(link, [...(rules.get(link) ?? []), rule]);
  for (const fault of faults) {
    if (isDirect(fault, places)) continue;
    if (fault.where === null) for (const [a, b] of pairsOf(places.nodes)) add(a, { ...fault, peer: b });
    else {
      const [first, second] = fault.where.split('-');
      add(first, { ...fault, peer: second ?? null });
    }
  }
  for (const list of rules.values()) list.sort((a, b) => FAULT_KINDS.indexOf(a.kind) - FAULT_KINDS.indexOf(b.kind));
  return rules;
}

/** What a person reads of a fault: "each frame 40 ms later, ± 10 ms". */
export function describe(spec: CheckedSpec): string {
  switch (spec.kind) {
    case 'partition':
      return 'nothing passes';
    case 'loss':
      return `${spec.percent} % of the frames are lost`;
    case 'mtu':
      return {
        silent: `IP packets longer than ${spec.bytes} bytes vanish, and nobody is told`,
        icmp: `IP packets longer than ${spec.bytes} bytes are refused with ICMP, or cut into fragments`,
        link: `the interface has an MTU of ${spec.bytes}`,
      }[spec.mode];
    case 'nat':
      return `its packets come from ${spec.address}`;
    case 'duplicate':
      return `${spec.percent} % of the frames come twice`;
    case 'delay':
      return `each frame ${spec.ms} ms later${spec.jitterMs > 0 ? `, ± ${spec.jitterMs} ms` : ''}`;
    case 'reorder':
      return `${spec.percent} % of the frames are held back for ${spec.ms} ms`;
  }
}
