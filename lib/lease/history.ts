// The past of a registry: who had which subnet when. Shapes and pure functions; etcd/history.ts reads etcd's own
// revisions, journal.ts what this node's daemon wrote down.
import { formatCidr4, formatCidr6, networkOf, parseCidr4, parseCidr6 } from '../wire/cidr.ts';
import { parseAddress4 } from '../wire/ip4.ts';
import { type Lease, type LeaseSubnets, nodeIdOf, subnetKey } from './lease.ts';

/** A lease as it is told to people and written to the journal: plain JSON. */
export interface Holding {
  /** "10.5.1.0/24"; "0.0.0.0/0" in a network without IPv4, as in flannel's keys. */
  subnet: string;
  subnet6?: string;
  publicIp: string;
  /** null: a lease of flannel's own, or a reservation that nobody has taken yet. */
  nodeId: string | null;
  /** "udp" where the lease names none: flannel's udp backend leaves it out. */
  backend: string;
  /** It has no TTL. */
  reservation: boolean;
  createRevision: number;
  modRevision: number;
}

/** Something that happened to one key. */
export interface Change {
  kind: 'put' | 'removed';
  /** flannel's key: "10.5.1.0-24". */
  key: string;
  /** For 'removed': as it was, where that is known. */
  holding?: Holding;
  /** When `late`, the revision at which it was noticed, the latest that it can be. */
  revision: number;
  /** Milliseconds since 1970, where somebody was watching. */
  atMs?: number;
  /** It happened while nobody was watching, between the entry before and this one. */
  late?: boolean;
}

/** Everything that a registry can still tell. */
export interface Past {
  /** The oldest revision whose state is known. */
  since: number;
  /** The state at `since`. */
  base: Holding[];
  /** What came after it, oldest first. */
  changes: Change[];
  /** The revision of the moment of asking. */
  revision: number;
}

/** A registry that remembers. Both reject with a RegistryError or TulleError; codes of `at`: 'compacted', 'future'. */
export interface RegistryHistory {
  at(revision: number): Promise<Holding[]>;
  past(): Promise<Past>;
  close(): void;
}

export function holdingOf(lease: Lease): Holding {
  return {
    subnet: formatCidr4(lease.subnet),
    ...(lease.subnet6 !== undefined && { subnet6: formatCidr6(lease.subnet6) }),
    publicIp: publicIpOf(lease),
    nodeId: nodeIdOf(lease) ?? null,
    backend: lease.attributes.BackendType || 'udp',
    reservation: lease.expiresAtMs === null,
    createRevision: lease.createRevision,
    modRevision: lease.modRevision,
  };
}

function publicIpOf({ attributes: { PublicIP, PublicIPv6 } }: Lease): string {
  return (PublicIP === '0.0.0.0' || PublicIP === '') && PublicIPv6 !== null ? PublicIPv6 : PublicIP;
}

/** The key of a holding: "10.5.1.0-24", dual stack "10.5.1.0-24&fd00::-64". */
export function keyOfHolding({ subnet, subnet6 }: Pick<Holding, 'subnet' | 'subnet6'>): string {
  const key4 = subnet.replace('/', '-');
  return subnet6 === undefined ? key4 : `${key4}&${subnet6.replace('/', '-')}`;
}

/** The same claim of the same node: a renewal makes no difference. */
export function sameHolding(a: Holding, b: Holding): boolean {
  return a.createRevision === b.createRevision && sameHolder(a, b) && a.reservation === b.reservation;
}

/** One node, wherever it may have been made again. */
export function sameHolder(a: Holding, b: Holding): boolean {
  return a.nodeId === b.nodeId && a.publicIp === b.publicIp && a.backend === b.backend;
}

/** "node n1 (10.88.0.1)", or "node 10.88.0.1" for a lease without a node id. */
export function printHolder({ nodeId, publicIp }: Pick<Holding, 'nodeId' | 'publicIp'>): string {
  return nodeId === null ? `node ${publicIp}` : `node ${nodeId} (${publicIp})`;
}

/**
 * Whether a key is what somebody means who writes "10.5.1.0/24", "10.5.1.0-24", "fd00:1::/64", or an address inside.
 * undefined: the text is none of these.
 */
export function matcherOf(text: string): ((key: string) => boolean) | undefined {
  const [wanted4, wanted6] = (text.includes('&') ? text : text.includes(':') ? `&${text}` : text).split('&', 2);
  if (text === '') return undefined;
  const four = wanted4 === '' ? undefined : prefix4(wanted4);
  const six = wanted6 === undefined ? undefined : prefix6(wanted6);
  if ((wanted4 !== '' && four === undefined) || (wanted6 !== undefined && six === undefined)) return undefined;
  return key => {
    const [own4, own6] = key.split('&', 2);
    return (four === undefined || four(own4)) && (six === undefined || (own6 !== undefined && six(own6)));
  };
}

function prefix4(text: string): ((key4: string) => boolean) | undefined {
  const slashed = text.replace('-', '/');
  const address = parseAddress4(text);
  const cidr = address === undefined ? parseCidr4(slashed) : { address, prefixLength: 32 };
  if (cidr === undefined) return undefined;
  return key4 => {
    const own = parseCidr4(key4.replace('-', '/'));
    if (own === undefined || own.prefixLength === 0) return false;
    // An address inside counts, and so does the gateway's spelling of a subnet ("10.5.1.1/24", as in subnet.env).
    return (
      own.prefixLength <= cidr.prefixLength && networkOf({ ...own, address: cidr.address }).address === own.address
    );
  };
}

function prefix6(text: string): ((key6: string) => boolean) | undefined {
  const slashed = text.replace('-', '/');
  const cidr = parseCidr6(slashed.includes('/') ? slashed : `${slashed}/128`);
  if (cidr === undefined) return undefined;
  return key6 => {
    const own = parseCidr6(key6.replace('-', '/'));
    if (own === undefined || own.prefixLength > cidr.prefixLength) return false;
    const shift = BigInt(128 - own.prefixLength);
    return own.address >> shift === cidr.address >> shift;
  };
}

/** The key's subnets as people write them: "10.5.1.0/24", dual stack "10.5.1.0/24 fd00::/64". */
export function printKey(key: string): string {
  const [key4, key6] = key.split('&', 2).map(part => part.replace(/-(\d+)$/, '/$1'));
  if (key6 === undefined) return key4;
  return key4 === '0.0.0.0/0' ? key6 : `${key4} ${key6}`;
}

/** Applies changes, oldest first, to a state by key; returns the state. */
export function replay(state: Map<string, Holding>, changes: Iterable<Change>): Map<string, Holding> {
  for (const { kind, key, holding } of changes) {
    if (kind === 'removed') state.delete(key);
    else if (holding !== undefined) state.set(key, holding);
  }
  return state;
}

/**
 * One history from two: the registry's changes as far as it remembers, with the times that the journal knows, and before
 * them the journal's own. Without a registry that remembers, the journal's alone. Oldest first.
 */
export function mergeHistory(past: Past | undefined, journal: readonly Change[]): Change[] {
  if (past === undefined) return [...journal];
  const times = new Map<string, number>();
  for (const change of journal) {
    if (change.atMs !== undefined && !change.late) times.set(nameOf(change), change.atMs);
  }
  const older = journal.filter(change => change.revision <= past.since);
  const told = new Set(older.map(nameOf));
  const base = past.base
    .map((holding): Change => ({ kind: 'put', key: keyOfHolding(holding), holding, revision: holding.modRevision }))
    .filter(change => !told.has(nameOf(change)))
    .sort((a, b) => a.revision - b.revision);
  const withTime = (change: Change): Change => {
    const atMs = change.atMs ?? times.get(nameOf(change));
    return atMs === undefined ? change : { ...change, atMs };
  };
  const all = [...older, ...base.map(withTime), ...past.changes.map(withTime)];
  return all.sort((a, b) => a.revision - b.revision); // stable: what is equal keeps its order
}

const nameOf = ({ kind, key, revision }: Change): string => `${kind} ${key} ${revision}`;

/** The changes of one message of a watch against what was known; `late` as in Change. `known` is brought up to date. */
export function changesBetween(
  known: Map<string, Holding>,
  leases: readonly Lease[],
  unreadable: readonly LeaseSubnets[],
  revision: number,
): Change[] {
  const changes: Change[] = [];
  const now = new Map(leases.map(lease => [subnetKey(lease), holdingOf(lease)]));
  const broken = new Set(unreadable.map(subnetKey)); // a value that cannot be read removes nobody
  for (const [key, holding] of known) {
    if (now.has(key) || broken.has(key)) continue;
    known.delete(key);
    changes.push({ kind: 'removed', key, holding, revision, late: true });
  }
  for (const [key, holding] of now) {
    const before = known.get(key);
    known.set(key, holding);
    changes.push(...changesOfPut(before, holding).map(change => ({ ...change, late: true })));
  }
  return changes;
}

/**
 * What a put of one key says to who knew `before`: nothing when it is a renewal; and where the key is another one now,
 * that the one before is gone, since some moment that nobody saw.
 */
export function changesOfPut(before: Holding | undefined, holding: Holding): Change[] {
  if (before !== undefined && sameHolding(before, holding)) return [];
  const key = keyOfHolding(holding);
  const put: Change = { kind: 'put', key, holding, revision: holding.modRevision };
  if (before === undefined || before.createRevision === holding.createRevision) return [put];
  return [{ kind: 'removed', key, holding: before, revision: holding.createRevision, late: true }, put];
}
