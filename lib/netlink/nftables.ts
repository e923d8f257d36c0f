/**
 * As much of nf_tables as is needed beside the `nft` program: the elements of a verdict map are added and deleted in a
 * transaction within microseconds (a process costs milliseconds), and what is there is read without starting anything.
 * Tables, chains and rules are nft's to make.
 *
 *   nlmsghdr, type (subsystem 10 << 8) | message    nfgenmsg (4): family 8 | version 8 | resource 16
 *
 * Numbers inside attributes are in network order here, unlike in rtnetlink. Source: linux/netfilter/nf_tables.h,
 * linux/netfilter/nfnetlink.h, net/netfilter/nf_tables_api.c, Linux 6.18.
 */
import { close, netlinkReceive, openNetlink, pollReadable } from '../sys/sys.ts';
import { codeOf } from '../util/errors.ts';
import { Channel } from './channel.ts';
import {
  type Attributes,
  type Message,
  MessageBuilder,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  nestedOf,
  parseAttributes,
  parseList,
  textOf,
} from './message.ts';

/** linux/netlink.h, linux/netfilter/nfnetlink.h */
const NETLINK_NETFILTER = 12;
const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 16;
const NFNL_MSG_BATCH_END = 17;
/** NFNLGRP_NFTABLES is group 7; bit 6 of the mask. */
const NFTABLES_GROUP_MASK = 1 << 6;
/** enum nf_tables_msg_types */
const NFT_MSG_GETCHAIN = 4;
const NFT_MSG_GETRULE = 7;
const NFT_MSG_NEWSETELEM = 12;
const NFT_MSG_GETSETELEM = 13;
const NFT_MSG_DELSETELEM = 14;
const NFT_MSG_GETGEN = 16;
/** enum nft_list_attributes, nft_set_elem_list_attributes, nft_set_elem_attributes, nft_data_attributes, nft_verdict_attributes */
const NFTA_LIST_ELEM = 1;
const NFTA_SET_ELEM_LIST_TABLE = 1;
const NFTA_SET_ELEM_LIST_SET = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_DATA = 2;
const NFTA_SET_ELEM_USERDATA = 6;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_VERDICT_CHAIN = 2;
/** enum nft_verdicts: NFT_GOTO is -4. */
const NFT_GOTO = 0xfffffffc;
/** enum nft_rule_attributes, nft_chain_attributes, nft_hook_attributes, nft_gen_attributes */
const NFTA_RULE_TABLE = 1;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_HOOK_HOOKNUM = 1;
const NFTA_GEN_ID = 1;
/** nft's own labels inside user data (libnftnl/udata.h): type, length, value. */
const NFTNL_UDATA_SET_ELEM_COMMENT = 0;
/** An element's parts lie within 255 bytes (struct nft_set_ext, offsets of 8 bits): 251 bytes of text still fit on 6.18. */
export const LONGEST_COMMENT = 180;
/** The kernel takes one message of at most the socket's send buffer, 208 KB by default; an element takes 450 bytes at most. */
const ELEMENTS_PER_BATCH = 200;

/** NFPROTO_IPV4 and NFPROTO_IPV6. */
export type NftFamily = 'ip' | 'ip6';
const FAMILIES: Record<number, string> = { 1: 'inet', 2: 'ip', 10: 'ip6' };
const NUMBERS: Record<NftFamily, number> = { ip: 2, ip6: 10 };

export interface MapPlace {
  family: NftFamily;
  table: string;
  map: string;
}

/** An element of a map `ipv4_addr : verdict` (or ipv6_addr) that goes to a chain. */
export interface MapElement {
  /** 4 or 16 bytes in network order. */
  key: Uint8Array;
  chain: string;
  /** What nft shows as the element's comment; at most LONGEST_COMMENT bytes. '' is none. */
  comment: string;
}

export interface BaseChain {
  family: string;
  table: string;
  name: string;
  /** enum nf_inet_hooks: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting */
  hook: number;
  policy: 'accept' | 'drop';
}

export const HOOK_FORWARD = 2;

const text32 = (value: number): Uint8Array =>
  Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);

function number32(attributes: Attributes, type: number): number | undefined {
  const value = attributes.get(type);
  if (value === undefined || value.length < 4) return undefined;
  return ((value[0] << 24) | (value[1] << 16) | (value[2] << 8) | value[3]) >>> 0;
}

function message(type: number, flags: number, family = 0): MessageBuilder {
  return new MessageBuilder((NFNL_SUBSYS_NFTABLES << 8) | type, NLM_F_REQUEST | flags).body(4, view =>
    view.setUint8(0, family),
  );
}

function batchEdge(type: number): MessageBuilder {
  // The resource names the subsystem, in network order.
  return new MessageBuilder(type, NLM_F_REQUEST).body(4, view => view.setUint16(2, NFNL_SUBSYS_NFTABLES));
}

export function commentBytes(comment: string): Uint8Array {
  const text = new TextEncoder().encode(comment);
  if (text.length > LONGEST_COMMENT) throw new RangeError(`a comment of ${text.length} bytes`);
  return Uint8Array.of(NFTNL_UDATA_SET_ELEM_COMMENT, text.length + 1, ...text, 0);
}

/** '' where there is none, or nothing that nft would show. */
export function commentOf(userData: Uint8Array | undefined): string {
  for (let at = 0; userData !== undefined && at + 2 <= userData.length; at += 2 + userData[at + 1]) {
    if (userData[at] !== NFTNL_UDATA_SET_ELEM_COMMENT) continue;
    const value = userData.subarray(at + 2, at + 2 + userData[at + 1]);
    const end = value.indexOf(0);
    return new TextDecoder().decode(end < 0 ? value : value.subarray(0, end));
  }
  return '';
}

function elementMessage(type: number, place: MapPlace, element: Pick<MapElement, 'key'> & Partial<MapElement>) {
  const flags = NLM_F_ACK | (type === NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0);
  const { chain, comment = '' } = element;
  return message(type, flags, NUMBERS[place.family])
    .text(NFTA_SET_ELEM_LIST_TABLE, place.table)
    .text(NFTA_SET_ELEM_LIST_SET, place.map)
    .nest(NFTA_SET_ELEM_LIST_ELEMENTS, list =>
      list.nest(NFTA_LIST_ELEM, item => {
        item.nest(NFTA_SET_ELEM_KEY, key => key.bytes(NFTA_DATA_VALUE, element.key));
        if (chain !== undefined) {
          item.nest(NFTA_SET_ELEM_DATA, data =>
            data.nest(NFTA_DATA_VERDICT, verdict =>
              verdict.bytes(NFTA_VERDICT_CODE, text32(NFT_GOTO)).text(NFTA_VERDICT_CHAIN, chain),
            ),
          );
        }
        if (comment !== '') item.bytes(NFTA_SET_ELEM_USERDATA, commentBytes(comment));
      }),
    );
}

/** The elements in one message of a dump; those that go to no chain are left out. */
export function parseElements({ payload }: Pick<Message, 'payload'>): MapElement[] {
  const attributes = parseAttributes(payload, 4);
  return parseList(attributes.get(NFTA_SET_ELEM_LIST_ELEMENTS) ?? new Uint8Array()).flatMap(bytes => {
    const item = parseAttributes(bytes);
    const key = nestedOf(item, NFTA_SET_ELEM_KEY).get(NFTA_DATA_VALUE);
    const chain = textOf(nestedOf(nestedOf(item, NFTA_SET_ELEM_DATA), NFTA_DATA_VERDICT), NFTA_VERDICT_CHAIN);
    if (key === undefined || chain === undefined) return [];
    return [{ key: key.slice(), chain, comment: commentOf(item.get(NFTA_SET_ELEM_USERDATA)) }];
  });
}

/** One change of a map. `remove` of a missing element, and `add` of a key that goes elsewhere, refuse the transaction. */
export type MapChange =
  | { kind: 'add'; place: MapPlace; element: MapElement }
  | { kind: 'remove'; place: MapPlace; element: Pick<MapElement, 'key'> };

/** A socket to the nf_tables of one namespace. Calls are synchronous; errors are NetlinkErrors, ENOENT for what is missing. */
export class NfTables {
  readonly #channel: Channel;

  /** @throws NetlinkError or SysError: EPROTONOSUPPORT where the kernel has no nfnetlink */
  constructor(namespace?: string) {
    this.#channel = new Channel(namespace, undefined, NETLINK_NETFILTER);
  }

  /** The elements of a map. */
  elements(place: MapPlace): MapElement[] {
    const request = message(NFT_MSG_GETSETELEM, NLM_F_DUMP, NUMBERS[place.family])
      .text(NFTA_SET_ELEM_LIST_TABLE, place.table)
      .text(NFTA_SET_ELEM_LIST_SET, place.map);
    return this.#channel.dump(`read map ${place.table} ${place.map}`, request, parseElements).flat();
  }

  /**
   * All changes, or none of them, in one transaction; only a list longer than ELEMENTS_PER_BATCH is several.
   * @param operation words that begin an error message
   */
  change(operation: string, changes: readonly MapChange[]): void {
    for (let first = 0; first < changes.length; first += ELEMENTS_PER_BATCH) {
      const messages = changes.slice(first, first + ELEMENTS_PER_BATCH).map(({ kind, place, element }) => {
        return elementMessage(kind === 'add' ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, place, element);
      });
      this.#channel.batch(operation, batchEdge(NFNL_MSG_BATCH_BEGIN), messages, batchEdge(NFNL_MSG_BATCH_END));
    }
  }

  /**
   * All rules of a table with their handles, as one text that is the same as long as nobody touched them; '' when the
   * table is missing or has none. Rules that count packets never look the same twice.
   */
  fingerprint(family: NftFamily, table: string): string {
    const request = message(NFT_MSG_GETRULE, NLM_F_DUMP, NUMBERS[family]).text(NFTA_RULE_TABLE, table);
    const parts = this.#channel.dump(`read table ${table}`, request, ({ payload }) => {
      // The fixed part holds the generation, which changes with every change of any table.
      const attributes = parseAttributes(payload, 4);
      return textOf(attributes, NFTA_RULE_TABLE) === table
        ? Buffer.from(payload.subarray(4)).toString('hex')
        : undefined;
    });
    return parts.join('\n');
  }

  /** The chains that hang on a hook, of all tables. */
  baseChains(): BaseChain[] {
    return this.#channel.dump('read chains', message(NFT_MSG_GETCHAIN, NLM_F_DUMP), ({ payload }) => {
      const attributes = parseAttributes(payload, 4);
      const hook = number32(nestedOf(attributes, NFTA_CHAIN_HOOK), NFTA_HOOK_HOOKNUM);
      if (hook === undefined) return undefined;
      const family = FAMILIES[payload[0]] ?? String(payload[0]);
      const [table, name] = [textOf(attributes, NFTA_CHAIN_TABLE) ?? '', textOf(attributes, NFTA_CHAIN_NAME) ?? ''];
      return { family, table, name, hook, policy: number32(attributes, NFTA_CHAIN_POLICY) === 0 ? 'drop' : 'accept' };
    });
  }

  /** A number that changes with every change of any table of the namespace. */
  generation(): number {
    let generation = 0;
    this.#channel.request('read the generation', message(NFT_MSG_GETGEN, NLM_F_ACK), ({ payload }) => {
      generation = number32(parseAttributes(payload, 4), NFTA_GEN_ID) ?? 0;
    });
    return generation;
  }

  close(): void {
    this.#channel.close();
  }
}

/** Opens it, or undefined where the kernel has no nf_tables or we may not look. */
export function openNfTables(namespace?: string): NfTables | undefined {
  let tables: NfTables | undefined;
  try {
    tables = new NfTables(namespace);
    tables.generation();
    return tables;
  } catch (error) {
    tables?.close();
    if (codeOf(error) === undefined) throw error;
    return undefined;
  }
}

/**
 * Calls `onChange` on this thread's event loop after every change of any table, also when news were lost, until the
 * returned function is called. It says nothing about what changed.
 */
export function watchNfTables(namespace: string | undefined, onChange: () => void): () => void {
  const options = { protocol: NETLINK_NETFILTER, groups: NFTABLES_GROUP_MASK };
  const handle = openNetlink(namespace === undefined ? options : { ...options, namespace });
  const buffer = new Uint8Array(64 * 1024);
  const drain = (): void => {
    try {
      while (netlinkReceive(handle, buffer, 0) > 0);
    } catch {
      // News were lost, which is news.
    }
    onChange();
  };
  let stop: () => void;
  try {
    stop = pollReadable(handle, drain);
  } catch (error) {
    close(handle);
    throw error;
  }
  let stopped = false;
  return () => {
    if (stopped) return;
    stopped = true;
    stop();
    close(handle);
  };
}
