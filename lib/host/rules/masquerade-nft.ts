/**
 * Attachments in nftables: a map from the pod's address to a chain, one chain for each list of networks.
 *
 *   table ip tulle-cni {
 *     map pods { type ipv4_addr : verdict; elements = { 10.5.1.7 comment "net/abc/eth0" : goto except-10.5.0.0-16 } }
 *     chain except-10.5.0.0-16 { ip daddr 10.5.0.0/16 return; ip daddr != 224.0.0.0/4 masquerade fully-random }
 *     chain postrouting { type nat hook postrouting priority srcnat; ip saddr vmap @pods }
 *   }
 *
 * A packet costs one hash lookup however many pods there are, and an attachment one element, set by netlink. A chain's
 * name says its networks, so that everything can be read back from the kernel.
 */
import type { MapChange, MapElement, MapPlace, NfTables } from '../../netlink/nftables.ts';
import { codeOf, TulleError } from '../../util/errors.ts';
import { formatAddress6, parseAddress6 } from '../../wire/address6.ts';
import { formatCidr6, parseCidr6 } from '../../wire/cidr.ts';
import { formatAddress4, parseAddress4 } from '../../wire/ip4.ts';
import { runTool } from './command.ts';
import { decodeId, type Entry, type EntryStore, encodeId, sameEntry } from './entry.ts';

export interface NftEntriesOptions {
  nft: string;
  nfTables: NfTables;
  family: 4 | 6;
  table: string;
  randomFully: boolean;
  namespace?: string;
}

const MAP = 'pods';
const CHAIN = 'except-';
/** NFT_NAME_MAXLEN of linux/netfilter/nf_tables.h is 256 with the zero: 13 networks of IPv4, 6 of IPv6. */
const LONGEST_CHAIN = 255;

export class NftEntries implements EntryStore {
  readonly name: string;
  readonly #options: NftEntriesOptions;
  readonly #place: MapPlace;
  /** Chains that were made, by name. */
  readonly #chains = new Set<string>();
  #seen = '';

  constructor(options: NftEntriesOptions) {
    this.#options = options;
    const { family, table } = options;
    this.#place = { family: family === 4 ? 'ip' : 'ip6', table, map: MAP };
    this.name = `nftables table ${this.#place.family} ${table}`;
  }

  async load(): Promise<Entry[]> {
    return this.#elements().flatMap(element => {
      const [id, networks] = [decodeId(element.comment), networksOfChain(element.chain)];
      if (id === undefined || networks === undefined) return [];
      return [{ id, family: this.#options.family, address: addressOf(element.key), networks }];
    });
  }

  async apply(remove: readonly Entry[], add: readonly Entry[]): Promise<void> {
    if (add.some(entry => !this.#chains.has(chainOf(entry.networks)))) await this.#makeChains(add);
    const changes = [
      ...remove.map((entry): MapChange => ({ kind: 'remove', place: this.#place, element: elementOf(entry) })),
      ...add.map((entry): MapChange => ({ kind: 'add', place: this.#place, element: elementOf(entry) })),
    ];
    this.#options.nfTables.change(`masquerade in ${this.name}`, changes);
  }

  async intact(entries: readonly Entry[]): Promise<boolean> {
    const { nfTables, table } = this.#options;
    // Nothing was made by this process, and nothing need be.
    if (this.#seen === '' && entries.length === 0) return true;
    if (nfTables.fingerprint(this.#place.family, table) !== this.#seen || this.#seen === '') return false;
    const there = new Map((await this.load()).map(entry => [entry.address, entry]));
    return (
      there.size === entries.length &&
      entries.every(entry => {
        const found = there.get(entry.address);
        return found !== undefined && sameEntry(found, entry);
      })
    );
  }

  async rebuild(entries: readonly Entry[]): Promise<void> {
    this.#chains.clear();
    await this.#makeChains(entries);
    const wanted = new Map(entries.map(entry => [entry.address, entry]));
    const there = await this.load();
    const keep = new Set<string>();
    const remove = there.filter(entry => {
      const other = wanted.get(entry.address);
      if (other === undefined || !sameEntry(other, entry)) return true;
      keep.add(entry.address);
      return false;
    });
    await this.apply(
      remove,
      entries.filter(entry => !keep.has(entry.address)),
    );
  }

  async destroy(): Promise<void> {
    const { nfTables, table } = this.#options;
    const { family } = this.#place;
    this.#seen = '';
    this.#chains.clear();
    if (!nfTables.baseChains().some(chain => chain.family === family && chain.table === table)) return;
    await this.#nft(`add table ${family} ${table}\ndelete table ${family} ${table}\n`);
  }

  /** The table, and the chains of these entries with those made before; elements stay. Packets never see half of it. */
  async #makeChains(entries: readonly Entry[]): Promise<void> {
    const { family, table, randomFully, nfTables } = this.#options;
    const [ip, kind, multicast] = family === 4 ? ['ip', 'ipv4_addr', '224.0.0.0/4'] : ['ip6', 'ipv6_addr', 'ff00::/8'];
    const names = new Set([...this.#chains, ...entries.map(entry => chainOf(entry.networks))]);
    const own = `${ip} ${table}`;
    const lines = [
      `add table ${own}`,
      `add map ${own} ${MAP} { type ${kind} : verdict; }`,
      `add chain ${own} postrouting { type nat hook postrouting priority srcnat; policy accept; }`,
      `flush chain ${own} postrouting`,
      `add rule ${own} postrouting ${ip} saddr vmap @${MAP}`,
      ...[...names].flatMap(name => [
        `add chain ${own} ${name}`,
        `flush chain ${own} ${name}`,
        ...networksOfChain(name)!.map(network => `add rule ${own} ${name} ${ip} daddr ${network} return`),
        `add rule ${own} ${name} ${ip} daddr != ${multicast} masquerade${randomFully ? ' fully-random' : ''}`,
      ]),
    ];
    await this.#nft(`${lines.join('\n')}\n`);
    for (const name of names) this.#chains.add(name);
    this.#seen = nfTables.fingerprint(this.#place.family, table);
  }

  #elements(): MapElement[] {
    try {
      return this.#options.nfTables.elements(this.#place);
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  async #nft(script: string): Promise<void> {
    const { nft, namespace } = this.#options;
    await runTool(nft, [script], namespace === undefined ? {} : { namespace });
  }
}

function elementOf({ id, address, networks }: Entry): MapElement {
  return { key: bytesOf(address), chain: chainOf(networks), comment: encodeId(id) };
}

function bytesOf(address: string): Uint8Array {
  const four = parseAddress4(address);
  if (four === undefined) return parseAddress6(address)!;
  return Uint8Array.of(four >>> 24, (four >>> 16) & 255, (four >>> 8) & 255, four & 255);
}

function addressOf(key: Uint8Array): string {
  if (key.length === 16) return formatAddress6(key);
  return formatAddress4(((key[0] << 24) | (key[1] << 16) | (key[2] << 8) | key[3]) >>> 0);
}

/** "except-10.5.0.0-16_10.6.0.0-16"; a name may not hold ":" or "/", so IPv6 is 32 hexadecimal digits. */
export function chainOf(networks: readonly string[]): string {
  const parts = networks.map(network => {
    const six = parseCidr6(network);
    if (six === undefined) return network.replace('/', '-');
    return `${six.address.toString(16).padStart(32, '0')}-${six.prefixLength}`;
  });
  const name = CHAIN + (parts.length === 0 ? 'none' : parts.join('_'));
  if (name.length > LONGEST_CHAIN)
    throw new TulleError('bad-masquerade', `${networks.length} networks to leave alone are too many: join some`);
  return name;
}

/** undefined for a name that is not ours. */
export function networksOfChain(name: string): string[] | undefined {
  if (!name.startsWith(CHAIN)) return undefined;
  const text = name.slice(CHAIN.length);
  if (text === 'none') return [];
  return text.split('_').map(part => {
    const six = /^([0-9a-f]{32})-(\d+)$/.exec(part);
    if (six === null) return part.replace('-', '/');
    return formatCidr6({ address: BigInt(`0x${six[1]}`), prefixLength: Number(six[2]) });
  });
}
