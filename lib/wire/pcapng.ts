/**
 * Writing pcapng, the file format of Wireshark (draft-ietf-opsawg-pcapng): a sequence of blocks, each with its type and its
 * length at both ends. Every function makes one whole block, in little-endian order; a file is a section header, its
 * interfaces, then packets and statistics. Pure, so that a page can write files too. The reader is pcapng-read.ts.
 */

export const BLOCK_SECTION = 0x0a0d0d0a;
export const BLOCK_INTERFACE = 1;
export const BLOCK_SIMPLE_PACKET = 3;
export const BLOCK_NAMES = 4;
export const BLOCK_STATISTICS = 5;
export const BLOCK_PACKET = 6;

export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
/** Bytes of type, length and length again: what every block has. */
export const BLOCK_FRAME_BYTES = 12;

/** The packet begins with its IP header, of version 4 or 6 (https://www.tcpdump.org/linktypes.html). */
export const LINKTYPE_RAW = 101;
/**
 * The same by its other number: what libpcap and Linux call DLT_RAW. libpcap compares the second interface's number as it
 * stands in the file with the first one's after it has turned 101 into 12 (sf-pcapng.c, 1.10), so that tcpdump refuses a file with
 * two interfaces of type 101. Wireshark takes both numbers.
 */
export const LINKTYPE_RAW_DLT = 12;
export const LINKTYPE_IPV4 = 228;
export const LINKTYPE_IPV6 = 229;

export const OPTION_END = 0;
export const OPTION_COMMENT = 1;
export const OPTION_HARDWARE = 2;
export const OPTION_OS = 3;
export const OPTION_APPLICATION = 4;
export const OPTION_IF_NAME = 2;
export const OPTION_IF_DESCRIPTION = 3;
export const OPTION_IF_RESOLUTION = 9;
export const OPTION_PACKET_FLAGS = 2;
export const OPTION_PACKET_DROPS = 4;
export const OPTION_STATISTICS_START = 2;
export const OPTION_STATISTICS_END = 3;
export const OPTION_STATISTICS_RECEIVED = 4;
export const OPTION_STATISTICS_OS_DROPS = 7;
export const OPTION_STATISTICS_DELIVERED = 8;

/** The two low bits of a packet's flags. */
export const DIRECTION_INBOUND = 1;
export const DIRECTION_OUTBOUND = 2;

/** 10^-9: timestamps count nanoseconds. */
const NANOSECONDS = 9;
/** An option's length is 16 bits. */
const LONGEST_OPTION = 0xffff;

interface Option {
  code: number;
  value: Uint8Array;
}

const encoder = new TextEncoder();

const pad4 = (length: number): number => (length + 3) & ~3;

/** A text that is too long is cut, between characters. */
function textOption(code: number, text: string | undefined): Option[] {
  if (text === undefined || text === '') return [];
  let value = encoder.encode(text);
  if (value.length > LONGEST_OPTION) {
    let end = LONGEST_OPTION;
    while ((value[end] & 0xc0) === 0x80) end--;
    value = value.subarray(0, end);
  }
  return [{ code, value }];
}

function longOption(code: number, value: bigint | undefined): Option[] {
  if (value === undefined) return [];
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  return [{ code, value: bytes }];
}

/** A time is two words, the high one first, whatever the order of bytes. */
function timeOption(code: number, nanoseconds: bigint | undefined): Option[] {
  if (nanoseconds === undefined) return [];
  const bytes = new Uint8Array(8);
  setTime(new DataView(bytes.buffer), 0, nanoseconds);
  return [{ code, value: bytes }];
}

function setTime(view: DataView, at: number, nanoseconds: bigint): void {
  const time = BigInt.asUintN(64, nanoseconds);
  view.setUint32(at, Number(time >> 32n), true);
  view.setUint32(at + 4, Number(time & 0xffff_ffffn), true);
}

/** A block of `bodyLength` bytes plus options; `fill` writes the body, which begins at the offset that it is given. */
function block(
  type: number,
  bodyLength: number,
  options: readonly Option[],
  fill: (view: DataView, at: number) => void,
): Uint8Array {
  const optionBytes = options.reduce((sum, { value }) => sum + 4 + pad4(value.length), options.length > 0 ? 4 : 0);
  const length = BLOCK_FRAME_BYTES + pad4(bodyLength) + optionBytes;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, length, true);
  view.setUint32(length - 4, length, true);
  fill(view, 8);
  let at = 8 + pad4(bodyLength);
  for (const { code, value } of options) {
    view.setUint16(at, code, true);
    view.setUint16(at + 2, value.length, true);
    bytes.set(value, at + 4);
    at += 4 + pad4(value.length);
  }
  return bytes;
}

export interface SectionOptions {
  hardware?: string;
  os?: string;
  application?: string;
  comment?: string;
}

/** The beginning of a section, and of every file. */
export function sectionHeader(options: SectionOptions = {}): Uint8Array {
  const list = [
    ...textOption(OPTION_COMMENT, options.comment),
    ...textOption(OPTION_HARDWARE, options.hardware),
    ...textOption(OPTION_OS, options.os),
    ...textOption(OPTION_APPLICATION, options.application),
  ];
  return block(BLOCK_SECTION, 16, list, (view, at) => {
    view.setUint32(at, BYTE_ORDER_MAGIC, true);
    view.setUint16(at + 4, 1, true); // version 1.0
    view.setBigInt64(at + 8, -1n, true); // the section's length is not known
  });
}

export interface InterfaceOptions {
  linkType: number;
  /** 0: no limit. */
  snaplen: number;
  name?: string;
  description?: string;
}

/** An interface; the first one of a section has number 0. Its timestamps are nanoseconds. */
export function interfaceDescription({ linkType, snaplen, name, description }: InterfaceOptions): Uint8Array {
  const list = [
    ...textOption(OPTION_IF_NAME, name),
    ...textOption(OPTION_IF_DESCRIPTION, description),
    { code: OPTION_IF_RESOLUTION, value: Uint8Array.of(NANOSECONDS) },
  ];
  return block(BLOCK_INTERFACE, 8, list, (view, at) => {
    view.setUint16(at, linkType, true);
    view.setUint32(at + 4, snaplen, true);
  });
}

export interface PacketOptions {
  interface: number;
  /** Nanoseconds since 1970. */
  time: bigint;
  /** What is kept of the packet. */
  data: Uint8Array;
  /** Bytes of the whole packet. */
  length: number;
  direction?: number;
  comments?: readonly string[];
  /** Packets that were lost between the one before and this one. */
  drops?: number;
}

export function enhancedPacket(packet: PacketOptions): Uint8Array {
  const list: Option[] = (packet.comments ?? []).flatMap(comment => textOption(OPTION_COMMENT, comment));
  if (packet.direction !== undefined) {
    list.push({ code: OPTION_PACKET_FLAGS, value: Uint8Array.of(packet.direction, 0, 0, 0) });
  }
  if (packet.drops) list.push(...longOption(OPTION_PACKET_DROPS, BigInt(packet.drops)));
  const { data } = packet;
  return block(BLOCK_PACKET, 20 + pad4(data.length), list, (view, at) => {
    view.setUint32(at, packet.interface, true);
    setTime(view, at + 4, packet.time);
    view.setUint32(at + 12, data.length, true);
    view.setUint32(at + 16, packet.length, true);
    new Uint8Array(view.buffer).set(data, at + 20);
  });
}

export interface StatisticsOptions {
  interface: number;
  /** All in nanoseconds since 1970. */
  time: bigint;
  start?: bigint;
  end?: bigint;
  /** Packets seen, lost for want of room, and given on. */
  received?: number;
  lost?: number;
  delivered?: number;
  comment?: string;
}

export function interfaceStatistics(statistics: StatisticsOptions): Uint8Array {
  const count = (value: number | undefined): bigint | undefined => (value === undefined ? undefined : BigInt(value));
  const list = [
    ...textOption(OPTION_COMMENT, statistics.comment),
    ...timeOption(OPTION_STATISTICS_START, statistics.start),
    ...timeOption(OPTION_STATISTICS_END, statistics.end),
    ...longOption(OPTION_STATISTICS_RECEIVED, count(statistics.received)),
    ...longOption(OPTION_STATISTICS_OS_DROPS, count(statistics.lost)),
    ...longOption(OPTION_STATISTICS_DELIVERED, count(statistics.delivered)),
  ];
  return block(BLOCK_STATISTICS, 12, list, (view, at) => {
    view.setUint32(at, statistics.interface, true);
    setTime(view, at + 4, statistics.time);
  });
}
