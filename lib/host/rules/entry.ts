/** One masqueraded address, as both tools keep it: with its attachment's id in a comment, percent-encoded. */
import { LONGEST_COMMENT } from '../../netlink/nftables.ts';
import { TulleError } from '../../util/errors.ts';
import { formatAddress6 } from '../../wire/address6.ts';
import { formatCidr4, formatCidr6, networkOf, networkOf6, parseCidr4, parseCidr6 } from '../../wire/cidr.ts';
import { formatAddress4, parseAddress4 } from '../../wire/ip4.ts';
import { parseAddress6 } from '../../wire/ip6.ts';

export interface MasqueradeRequest {
  /** Names the attachment; any text of at most 180 bytes when percent-encoded. */
  id: string;
  /** Addresses of the pod, with or without "/length"; both families may occur. */
  addresses: readonly string[];
  /** CIDRs to which the pod's own address is kept: its subnet, the pod network. Multicast is always left alone. */
  exceptNetworks: readonly string[];
}

export interface Entry {
  id: string;
  family: 4 | 6;
  address: string;
  /** CIDRs of the same family, each once, sorted. */
  networks: readonly string[];
}

/** @throws TulleError 'bad-masquerade' that names what cannot be read */
export function entriesOf({ id, addresses, exceptNetworks }: MasqueradeRequest): Entry[] {
  if (id === '' || encodeId(id).length > LONGEST_COMMENT)
    throw bad(`an attachment's id must have 1 to ${LONGEST_COMMENT} characters: "${id}"`);
  const networks = exceptNetworks.map(networkOfText);
  return addresses.map(text => {
    const { family, address } = addressOfText(text);
    const own = networks.filter(network => network.family === family).map(network => network.text);
    return { id, family, address, networks: [...new Set(own)].sort() };
  });
}

function addressOfText(text: string): Pick<Entry, 'family' | 'address'> {
  const bare = text.split('/', 1)[0];
  const [four, six] = [parseAddress4(bare), parseAddress6(bare)];
  if (four !== undefined) return { family: 4, address: formatAddress4(four) };
  if (six !== undefined) return { family: 6, address: formatAddress6(six) };
  throw bad(`"${text}" is not an address to masquerade`);
}

function networkOfText(text: string): { family: 4 | 6; text: string } {
  const four = parseCidr4(text);
  if (four !== undefined) return { family: 4, text: formatCidr4(networkOf(four)) };
  const six = parseCidr6(text);
  if (six !== undefined) return { family: 6, text: formatCidr6(networkOf6(six)) };
  throw bad(`"${text}" is not a network such as 10.244.0.0/16`);
}

const bad = (message: string): TulleError => new TulleError('bad-masquerade', message);

/** Letters, digits and ".:_-/@" stay: iptables prints the rest in quotes or with backslashes. */
export function encodeId(id: string): string {
  return encodeURIComponent(id)
    .replace(/%(2F|3A|40)/g, decodeURIComponent)
    .replace(/[!'()*~]/g, character => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** undefined for a comment that is not ours. */
export function decodeId(comment: string): string | undefined {
  try {
    return comment === '' ? undefined : decodeURIComponent(comment);
  } catch {
    return undefined;
  }
}

/** Two entries with one key cannot both stand. */
export const keyOf = (entry: Pick<Entry, 'address'>): string => entry.address;

export const sameEntry = (a: Entry, b: Entry): boolean =>
  a.id === b.id && a.address === b.address && a.networks.join() === b.networks.join();

/** Where the entries of one family are kept: nftables or iptables. The caller makes one call at a time. */
export interface EntryStore {
  /** For the log. */
  readonly name: string;
  /** What is there, also from an earlier process. */
  load(): Promise<Entry[]>;
  /** All of it in one transaction, or none. Nothing in `remove` is missing, nothing in `add` is there. */
  apply(remove: readonly Entry[], add: readonly Entry[]): Promise<void>;
  /** Whether exactly these stand, and the rules that they need. Cheap. */
  intact(entries: readonly Entry[]): Promise<boolean>;
  /** Makes everything that these need, whatever is there. */
  rebuild(entries: readonly Entry[]): Promise<void>;
  /** Removes everything. */
  destroy(): Promise<void>;
}
