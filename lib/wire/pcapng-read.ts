/**
 * Reading pcapng, also in a browser: sections, interfaces, packets of both kinds, statistics; names and what is unknown are
 * skipped. Both byte orders. A file is hostile until checked: whatever it says, this returns what could be read and the reason
 * why it went no further, and never throws. Packets and texts are limited by the file's own size.
 */
import {
  BLOCK_FRAME_BYTES,
  BLOCK_INTERFACE,
  BLOCK_PACKET,
  BLOCK_SECTION,
  BLOCK_SIMPLE_PACKET,
  BLOCK_STATISTICS,
  BYTE_ORDER_MAGIC,
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  OPTION_COMMENT,
  OPTION_END,
  OPTION_IF_DESCRIPTION,
  OPTION_IF_NAME,
  OPTION_IF_RESOLUTION,
  OPTION_PACKET_DROPS,
  OPTION_PACKET_FLAGS,
  OPTION_STATISTICS_DELIVERED,
  OPTION_STATISTICS_OS_DROPS,
  OPTION_STATISTICS_RECEIVED,
} from './pcapng.ts';

/** No block of a sane file is longer: a packet of 256 KB and its comments. */
export const LONGEST_BLOCK = 16 * 1024 * 1024;
/** libpcap and Wireshark know no file with more. */
const MOST_INTERFACES = 65_536;

export interface PcapngInterface {
  linkType: number;
  snaplen: number;
  name: string;
  description: string;
  statistics?: { received?: number; lost?: number; delivered?: number };
}

export interface PcapngPacket {
  /** Index in `interfaces` of the result. */
  interface: number;
  /** Nanoseconds since 1970; undefined for a simple packet, which has no time. */
  time: bigint | undefined;
  /** A view on the file: what was kept. */
  data: Uint8Array;
  /** Bytes of the whole packet. */
  length: number;
  direction: 'in' | 'out' | undefined;
  comments: string[];
  /** Packets lost before this one. */
  drops: number;
}

/** Why reading stopped. */
export interface PcapngFault {
  /** Byte of the stream at which the bad block begins. */
  offset: number;
  reason: string;
}

interface Interface extends PcapngInterface {
  /** Nanoseconds are ticks × multiply / divide, plus the offset. */
  multiply: bigint;
  divide: bigint;
}

/** Reads a whole file. `fault` is undefined when it was read to its end. */
export function readPcapng(file: Uint8Array): {
  interfaces: PcapngInterface[];
  packets: PcapngPacket[];
  fault: PcapngFault | undefined;
} {
  const packets: PcapngPacket[] = [];
  const reader = new PcapngReader({ packet: packet => packets.push(packet) });
  reader.push(file);
  return { interfaces: reader.interfaces, packets, fault: reader.end() };
}

export interface PcapngListener {
  /** `data` is valid for as long as the pushed bytes are. */
  packet(packet: PcapngPacket): void;
  /** A whole block, of any type. */
  block?(type: number, bytes: Uint8Array): void;
}

/** Reads a stream in pieces of any size. */
export class PcapngReader {
  /** Of all sections, in order. */
  readonly interfaces: PcapngInterface[] = [];
  readonly #listener: PcapngListener;
  #rest = new Uint8Array(0);
  /** Bytes of the stream before `#rest`. */
  #offset = 0;
  #fault: PcapngFault | undefined;
  #little = true;
  #inSection = false;
  /** The section's interfaces: where they begin in `interfaces`, and what their times mean. */
  #first = 0;
  #known: Interface[] = [];

  constructor(listener: PcapngListener) {
    this.#listener = listener;
  }

  get fault(): PcapngFault | undefined {
    return this.#fault;
  }

  /** Bytes of the stream that were whole blocks. */
  get wholeBytes(): number {
    return this.#offset;
  }

  push(chunk: Uint8Array): void {
    if (this.#fault !== undefined) return;
    let bytes = chunk;
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length);
      bytes.set(this.#rest);
      bytes.set(chunk, this.#rest.length);
    }
    let at = 0;
    while (this.#fault === undefined) {
      const length = this.#blockLength(bytes, at);
      if (length < 0 || at + length > bytes.length) break;
      this.#block(bytes.subarray(at, at + length));
      if (this.#fault !== undefined) break;
      at += length;
      this.#offset += length;
    }
    this.#rest = this.#fault === undefined ? bytes.slice(at) : new Uint8Array(0);
  }

  /** Says that no more comes. */
  end(): PcapngFault | undefined {
    if (this.#fault === undefined && this.#rest.length > 0) this.#stop('the file ends in the middle of a block');
    if (this.#fault === undefined && !this.#inSection) this.#stop('the file is empty');
    return this.#fault;
  }

  #stop(reason: string): -1 {
    this.#fault ??= { offset: this.#offset, reason };
    return -1;
  }

  /** The length of the block at `at`; -1 when more bytes must come first, or when none can follow. */
  #blockLength(bytes: Uint8Array, at: number): number {
    if (bytes.length - at < BLOCK_FRAME_BYTES) {
      // What is no pcapng is said at once, not at the end.
      if (bytes.length - at >= 4 && !this.#inSection && typeOf(bytes, at) !== BLOCK_SECTION) return this.#noSection();
      return -1;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset + at);
    if (typeOf(bytes, at) === BLOCK_SECTION) {
      // A section header's type reads the same in both orders; its magic says which one the section has.
      if (view.getUint32(8, true) === BYTE_ORDER_MAGIC) this.#little = true;
      else if (view.getUint32(8, false) === BYTE_ORDER_MAGIC) this.#little = false;
      else return this.#stop('a section header without the byte-order magic');
    } else if (!this.#inSection) return this.#noSection();
    const length = view.getUint32(4, this.#little);
    if (length < BLOCK_FRAME_BYTES || length % 4 !== 0) return this.#stop(`a block of ${length} bytes`);
    if (length > LONGEST_BLOCK)
      return this.#stop(`a block of ${length} bytes: more than ${LONGEST_BLOCK} are not read`);
    return length;
  }

  #noSection(): -1 {
    return this.#stop('it does not begin with a section header: it is no pcapng file');
  }

  #block(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const type = view.getUint32(0, this.#little);
    if (view.getUint32(bytes.length - 4, this.#little) !== bytes.length) {
      this.#stop('a block that says two different lengths');
      return;
    }
    if (type === BLOCK_SECTION) this.#section(view);
    else if (type === BLOCK_INTERFACE) this.#interface(view);
    else if (type === BLOCK_PACKET) this.#packet(view);
    else if (type === BLOCK_SIMPLE_PACKET) this.#simplePacket(view);
    else if (type === BLOCK_STATISTICS) this.#statistics(view);
    if (this.#fault === undefined) this.#listener.block?.(type, bytes);
  }

  #section(view: DataView): void {
    if (view.byteLength < BLOCK_FRAME_BYTES + 16) return void this.#stop('a section header that is too short');
    const major = view.getUint16(12, this.#little);
    if (major !== 1) return void this.#stop(`version ${major} of the format, where 1 is known`);
    this.#inSection = true;
    this.#first = this.interfaces.length;
    this.#known = [];
  }

  #interface(view: DataView): void {
    if (view.byteLength < BLOCK_FRAME_BYTES + 8) return void this.#stop('an interface block that is too short');
    if (this.interfaces.length >= MOST_INTERFACES) return void this.#stop('too many interfaces');
    const found: Interface = {
      linkType: view.getUint16(8, this.#little),
      snaplen: view.getUint32(12, this.#little),
      name: '',
      description: '',
      multiply: 1000n, // microseconds, unless it says otherwise
      divide: 1n,
    };
    this.#options(view, 16, (code, value) => {
      if (code === OPTION_IF_NAME) found.name = textOf(value);
      if (code === OPTION_IF_DESCRIPTION) found.description = textOf(value);
      if (code === OPTION_IF_RESOLUTION && value.length === 1) setResolution(found, value[0]);
    });
    const { linkType, snaplen, name, description } = found;
    this.#known.push(found);
    this.interfaces.push({ linkType, snaplen, name, description });
  }

  #packet(view: DataView): void {
    if (view.byteLength < BLOCK_FRAME_BYTES + 20) return void this.#stop('a packet block that is too short');
    const index = view.getUint32(8, this.#little);
    const from = this.#known[index];
    if (from === undefined) return void this.#stop(`a packet of interface ${index}, which there is not`);
    const captured = view.getUint32(20, this.#little);
    if (captured > view.byteLength - BLOCK_FRAME_BYTES - 20) return void this.#stop('a packet longer than its block');
    const packet: PcapngPacket = {
      interface: this.#first + index,
      time: (this.#timeAt(view, 12) * from.multiply) / from.divide,
      data: bytesOf(view, 28, captured),
      length: view.getUint32(24, this.#little),
      direction: undefined,
      comments: [],
      drops: 0,
    };
    this.#options(view, 28 + ((captured + 3) & ~3), (code, value) => {
      if (code === OPTION_COMMENT) packet.comments.push(textOf(value));
      if (code === OPTION_PACKET_FLAGS && value.length === 4) {
        const flags = dataView(value).getUint32(0, this.#little) & 3;
        packet.direction = flags === DIRECTION_INBOUND ? 'in' : flags === DIRECTION_OUTBOUND ? 'out' : undefined;
      }
      if (code === OPTION_PACKET_DROPS && value.length === 8) packet.drops = this.#longOf(value);
    });
    if (this.#fault === undefined) this.#listener.packet(packet);
  }

  #simplePacket(view: DataView): void {
    const from = this.#known[0];
    if (view.byteLength < BLOCK_FRAME_BYTES + 4) return void this.#stop('a packet block that is too short');
    if (from === undefined) return void this.#stop('a packet before any interface');
    const length = view.getUint32(8, this.#little);
    const room = view.byteLength - BLOCK_FRAME_BYTES - 4;
    const captured = Math.min(length, from.snaplen === 0 ? length : from.snaplen);
    if (captured > room) return void this.#stop('a packet longer than its block');
    const data = bytesOf(view, 12, captured);
    this.#listener.packet({
      ...{ interface: this.#first, time: undefined, data, length },
      ...{ direction: undefined, comments: [], drops: 0 },
    });
  }

  #statistics(view: DataView): void {
    if (view.byteLength < BLOCK_FRAME_BYTES + 12) return void this.#stop('a statistics block that is too short');
    const of = this.interfaces[this.#first + view.getUint32(8, this.#little)];
    if (of === undefined) return void this.#stop('statistics of an interface that there is not');
    const found: PcapngInterface['statistics'] = {};
    this.#options(view, 20, (code, value) => {
      if (value.length !== 8) return;
      if (code === OPTION_STATISTICS_RECEIVED) found.received = this.#longOf(value);
      if (code === OPTION_STATISTICS_OS_DROPS) found.lost = this.#longOf(value);
      if (code === OPTION_STATISTICS_DELIVERED) found.delivered = this.#longOf(value);
    });
    of.statistics = found;
  }

  /** Walks the options from `at` to the block's end. */
  #options(view: DataView, from: number, take: (code: number, value: Uint8Array) => void): void {
    const end = view.byteLength - 4;
    let at = from;
    while (at + 4 <= end) {
      const code = view.getUint16(at, this.#little);
      const length = view.getUint16(at + 2, this.#little);
      if (code === OPTION_END) return;
      if (at + 4 + length > end) return void this.#stop('an option longer than its block');
      take(code, bytesOf(view, at + 4, length));
      at += 4 + ((length + 3) & ~3);
    }
  }

  #timeAt(view: DataView, at: number): bigint {
    return (BigInt(view.getUint32(at, this.#little)) << 32n) | BigInt(view.getUint32(at + 4, this.#little));
  }

  #longOf(value: Uint8Array): number {
    return Number(dataView(value).getBigUint64(0, this.#little));
  }
}

/** A block's type, in little-endian order; that of a section header is the same in both. */
const typeOf = (bytes: Uint8Array, at: number): number =>
  (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;

const dataView = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const bytesOf = (view: DataView, at: number, length: number): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset + at, length);

const decoder = new TextDecoder();
const textOf = (bytes: Uint8Array): string => decoder.decode(bytes);

/** The high bit: a power of two; else of ten. Ticks finer than a nanosecond are rounded down. */
function setResolution(of: Interface, value: number): void {
  const exponent = BigInt(value & 0x7f);
  of.multiply = 1_000_000_000n;
  of.divide = (value & 0x80) !== 0 ? 2n ** exponent : 10n ** exponent;
}
