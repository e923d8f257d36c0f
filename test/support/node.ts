/**
 * A node's data path without descriptors: the slab, the peers, Egress and Ingress as the loops drive them, over arrays
 * where the kernel would be. What the kernel does with a table (cut a train, gather an iovec) is done here naively.
 */
import { Egress } from '../../lib/datapath/egress.ts';
import type { Sum } from '../../lib/datapath/flow-run.ts';
import { Ingress } from '../../lib/datapath/ingress.ts';
import { type Peer, PeerTable, writeEndpoint } from '../../lib/datapath/peers.ts';
import { SideLink } from '../../lib/datapath/side-link.ts';
import { SideTraffic } from '../../lib/datapath/side-traffic.ts';
import {
  CONTROL_KEY,
  CONTROL_MTU,
  FORMAT_TULLE,
  IOV_WORDS,
  MESSAGE_WORDS,
  openSlab,
  PACKET_WORDS,
  RECORD_WORDS,
  SLOT_BYTES,
  SLOTS,
  type Slab,
  TUN_READ_OFFSET,
} from '../../lib/datapath/slab.ts';
import { fold, sum } from '../../lib/wire/checksum.ts';
import type { Subnet4 } from '../../lib/wire/cidr.ts';
import { parseCidr4, parseCidr6, type Subnet6 } from '../../lib/wire/cidr.ts';
import { address, address6 } from './packets.ts';

export const cidr = (text: string): Subnet4 => {
  const value = parseCidr4(text);
  if (value === undefined) throw new Error(`not a CIDR: ${text}`);
  return value;
};

export const NETWORK = { network: cidr('10.42.0.0/16'), subnetLength: 24 };

export const cidr6 = (text: string): Subnet6 => {
  const value = parseCidr6(text);
  if (value === undefined) throw new Error(`not a CIDR: ${text}`);
  return value;
};

/** The same with IPv6: node K has fd00:42:0:K::/64. */
export const BOTH = { ...NETWORK, network6: cidr6('fd00:42::/48'), subnetLength6: 64 };
export const subnet6Of = (k: number): Subnet6 => cidr6(`fd00:42:0:${k.toString(16)}::/64`);

/** Node K of the tests: subnet 10.42.K.0/24, endpoint 10.88.0.K:8285, lease key 100 + K. */
export const peerOfNode = (k: number, format = FORMAT_TULLE): Peer => ({
  subnet: cidr(`10.42.${k}.0/24`),
  address: address(`10.88.0.${k}`),
  port: 8285,
  key: 100 + k,
  format,
});

export interface Train {
  /** Bytes 0 to 7 of the struct sockaddr_in that it goes to. */
  to: Uint8Array;
  datagrams: Uint8Array[];
}

export interface Received {
  from?: { address: string; port: number };
  datagrams: Uint8Array[];
}

export class TestNode {
  readonly slab: Slab;
  readonly table: PeerTable;
  /** What left, in order. */
  sent: Train[] = [];
  /** What the TUN got: vnet header and packet. */
  written: Uint8Array[] = [];
  /** ICMP errors that the TUN got: vnet header and packet. */
  replies: Uint8Array[] = [];
  /** What the kernel says of the underlay's path, and the time in milliseconds. */
  pathMtu = 1500;
  now = 0;
  /** Replaced by a test to refuse messages (an errno) or packets. */
  refuseMessage: (train: Train) => number = () => 0;
  refusePacket: (packet: Uint8Array) => number = () => 0;
  readonly sum: Sum;
  /** How often the main thread was told of mail. */
  told = 0;
  readonly side: SideTraffic;
  /** The main thread's end of the letters. */
  readonly link: SideLink;
  readonly #egress: Egress;
  readonly #ingress: Ingress;

  /** `six`: in a dual-stack network. */
  constructor(k: number, format = FORMAT_TULLE, six = false) {
    const network = six ? BOTH : NETWORK;
    const own = { subnet: cidr(`10.42.${k}.0/24`), ...(six && { subnet6: subnet6Of(k) }) };
    this.slab = openSlab(256, six ? 65_536 : 0);
    this.sum = (offset, length, initial) => fold(sum(this.slab.bytes, offset, length, initial));
    this.table = new PeerTable(this.slab, network);
    this.table.own(own);
    this.slab.control[CONTROL_KEY] = 100 + k;
    this.slab.control[CONTROL_MTU] = 1460;
    this.#egress = new Egress(this.slab, {
      network,
      own,
      format,
      send: count => this.#send(count),
      sum: this.sum,
      writeReplies: count => this.#writeReplies(count),
      pathTo: () => this.pathMtu,
      now: () => this.now,
    });
    this.side = new SideTraffic(this.slab, {
      network,
      send: count => this.#send(count),
      now: () => this.now,
      tell: () => this.told++,
    });
    this.link = new SideLink(this.slab, () => {});
    const write = (count: number): number => this.#write(count);
    this.#ingress = new Ingress(this.slab, network, own, write, this.sum, this.side);
  }

  /** Gives the TUN's reads to egress, batch by batch. */
  read(reads: readonly Uint8Array[]): void {
    for (let first = 0; first < reads.length; first += SLOTS) {
      const batch = reads.slice(first, first + SLOTS);
      batch.forEach((bytes, slot) => {
        this.slab.bytes.set(bytes, this.slab.tunSlotsOffset + slot * SLOT_BYTES + TUN_READ_OFFSET);
        this.slab.words[(this.slab.tunLengthsOffset >> 2) + slot] = bytes.length;
      });
      this.slab.tap?.read(batch.length);
      this.#egress.take(batch.length);
    }
  }

  /** Gives received trains to ingress; all datagrams of a train but the last have one size. */
  receive(trains: readonly Received[]): void {
    for (let first = 0; first < trains.length; first += SLOTS) {
      const batch = trains.slice(first, first + SLOTS);
      this.place(batch);
      this.slab.tap?.received(batch.length);
      this.#ingress.take(batch.length);
    }
  }

  /** Does the main thread's errands, as a loop does at the beginning of a turn. */
  runErrands(fenced = false): void {
    if (this.side.isWanted) this.side.run(fenced, this.#egress);
  }

  /** Puts trains where a receive would have put them, and leaves them there. */
  place(trains: readonly Received[]): void {
    trains.forEach((train, slot) => {
      this.#place(train, slot);
    });
  }

  /** Takes what the node wrote to the TUN so far. */
  takeWritten(): Uint8Array[] {
    return this.written.splice(0);
  }

  takeReplies(): Uint8Array[] {
    return this.replies.splice(0);
  }

  takeSent(): Train[] {
    return this.sent.splice(0);
  }

  #place({ from = { address: '10.88.0.2', port: 8285 }, datagrams }: Received, slot: number): void {
    const { bytes, words } = this.slab;
    let end = this.slab.udpSlotsOffset + slot * SLOT_BYTES;
    const start = end;
    for (const datagram of datagrams) {
      bytes.set(datagram, end);
      end += datagram.length;
    }
    const record = (this.slab.recordsOffset >> 2) + slot * RECORD_WORDS;
    words.fill(0, record, record + RECORD_WORDS);
    words[record] = end - start;
    words[record + 1] = datagrams.length > 1 ? datagrams[0].length : 0;
    const place = this.slab.recordsOffset + slot * RECORD_WORDS * 4 + 16;
    writeEndpoint(bytes, place, from.address.includes(':') ? address6(from.address) : address(from.address), from.port);
  }

  #gather(table: number, first: number, count: number): Uint8Array {
    const { bytes, words } = this.slab;
    const parts: number[] = [];
    for (let iov = first; iov < first + count; iov++) {
      const at = (table >> 2) + iov * IOV_WORDS;
      for (let i = 0; i < words[at + 1]; i++) parts.push(bytes[words[at] + i]);
    }
    return Uint8Array.from(parts);
  }

  #send(count: number): number {
    const { words, bytes } = this.slab;
    let left = 0;
    for (let message = 0; message < count; message++) {
      const at = (this.slab.messagesOffset >> 2) + message * MESSAGE_WORDS;
      const all = this.#gather(this.slab.egressIovsOffset, words[at], words[at + 1]);
      const stride = words[at + 2] || all.length;
      const datagrams: Uint8Array[] = [];
      for (let offset = 0; offset < all.length; offset += stride) datagrams.push(all.slice(offset, offset + stride));
      const train = { to: bytes.slice(words[at + 3], words[at + 3] + 8), datagrams };
      words[at + 4] = this.refuseMessage(train);
      if (words[at + 4] !== 0) continue;
      this.sent.push(train);
      left++;
    }
    this.slab.tap?.sent(count);
    return left;
  }

  #writeReplies(count: number): number {
    const { words } = this.slab;
    for (let packet = 0; packet < count; packet++) {
      const at = (this.slab.replyPacketsOffset >> 2) + packet * PACKET_WORDS;
      this.replies.push(this.#gather(this.slab.replyIovsOffset, words[at], words[at + 1]));
    }
    this.slab.tap?.written(this.slab.replyPacketsOffset, count, this.slab.replyIovsOffset);
    return count;
  }

  #write(count: number): number {
    const { words } = this.slab;
    let taken = 0;
    for (let packet = 0; packet < count; packet++) {
      const at = (this.slab.packetsOffset >> 2) + packet * PACKET_WORDS;
      const bytes = this.#gather(this.slab.ingressIovsOffset, words[at], words[at + 1]);
      words[at + 2] = this.refusePacket(bytes);
      if (words[at + 2] !== 0) continue;
      this.written.push(bytes);
      taken++;
    }
    this.slab.tap?.written(this.slab.packetsOffset, count, this.slab.ingressIovsOffset);
    return taken;
  }
}

/** Two nodes, 1 and 2, that know each other. */
export function pair(format = FORMAT_TULLE, six = false): [TestNode, TestNode] {
  const [a, b] = [new TestNode(1, format, six), new TestNode(2, format, six)];
  if (six) {
    a.table.update([{ ...peerOfNode(2, format), subnet6: subnet6Of(2) }], []);
    b.table.update([{ ...peerOfNode(1, format), subnet6: subnet6Of(1) }], []);
    return [a, b];
  }
  a.table.update([peerOfNode(2, format)], []);
  b.table.update([peerOfNode(1, format)], []);
  return [a, b];
}
