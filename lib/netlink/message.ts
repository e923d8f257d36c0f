/**
 * Netlink messages as bytes: a header, a fixed body that depends on the message type, then attributes.
 *
 *   nlmsghdr (16)                                  rtattr / nlattr (4 + value, padded to 4)
 *   +--------+------+-------+----------+--------+  +--------+------+-----------+
 *   | length | type | flags | sequence | port   |  | length | type | value ... |
 *   | 32     | 16   | 16    | 32       | 32     |  | 16     | 16   |           |
 *   +--------+------+-------+----------+--------+  +--------+------+-----------+
 *
 * Numbers are in the machine's own byte order; addresses inside values are in network order. This file opens no
 * socket. Whatever is parsed is checked against the bytes at hand: malformed input throws a NetlinkError with the code
 * EBADMSG and nothing else. Source: include/uapi/linux/netlink.h, Linux 6.18.
 */
import { NetlinkError } from './error.ts';

/** struct nlmsghdr, linux/netlink.h. */
export const HEADER_BYTES = 16;
const LENGTH_AT = 0;
const TYPE_AT = 4;
const FLAGS_AT = 6;
const SEQUENCE_AT = 8;
const PORT_AT = 12;
/** struct nlattr, linux/netlink.h (struct rtattr of linux/rtnetlink.h is the same). */
export const ATTRIBUTE_BYTES = 4;

/** Message types below 16 are netlink's own, linux/netlink.h. */
export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;

/** Flags, linux/netlink.h. Several share a bit: which one is meant follows from the kind of message. */
export const NLM_F_REQUEST = 0x01;
export const NLM_F_MULTI = 0x02;
export const NLM_F_ACK = 0x04;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300; // GET requests
export const NLM_F_REPLACE = 0x100; // NEW requests
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_CAPPED = 0x100; // acknowledgements: the request's body was not copied back
export const NLM_F_ACK_TLVS = 0x200;

/** Attribute type bits, linux/netlink.h. */
export const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;
/** enum nlmsgerr_attrs, linux/netlink.h. */
const NLMSGERR_ATTR_MSG = 1;

const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Netlink pads everything to 4 bytes (NLMSG_ALIGNTO, NLA_ALIGNTO). */
export const align = (bytes: number): number => (bytes + 3) & ~3;

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

// ---- building ------------------------------------------------------------------------------------------------------

/**
 * Builds one message. `body` is the fixed part that the type demands (ifinfomsg, rtmsg, ...); attributes follow in the
 * order of the calls. `finish` stamps length and sequence and returns the bytes, borrowed until the builder is used again.
 */
export class MessageBuilder {
  #bytes: Uint8Array;
  #view: DataView;
  #length: number = HEADER_BYTES;

  constructor(type: number, flags: number) {
    this.#bytes = new Uint8Array(512);
    this.#view = viewOf(this.#bytes);
    this.#view.setUint16(TYPE_AT, type, LITTLE_ENDIAN);
    this.#view.setUint16(FLAGS_AT, flags, LITTLE_ENDIAN);
  }

  #reserve(count: number): number {
    const at = this.#length;
    const wanted = at + align(count);
    if (wanted > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(wanted, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = viewOf(larger);
    }
    this.#length = wanted;
    return at;
  }

  /** Appends a fixed structure of `count` zeroed bytes and lets `fill` write into it. */
  body(count: number, fill: (view: DataView, littleEndian: boolean) => void): this {
    const at = this.#reserve(count);
    fill(new DataView(this.#bytes.buffer, this.#bytes.byteOffset + at, count), LITTLE_ENDIAN);
    return this;
  }

  #attribute(type: number, count: number): number {
    if (count + ATTRIBUTE_BYTES > 0xffff)
      throw new NetlinkError('EMSGSIZE', 'netlink attribute longer than 65535 bytes');
    const at = this.#reserve(ATTRIBUTE_BYTES + count);
    this.#view.setUint16(at, ATTRIBUTE_BYTES + count, LITTLE_ENDIAN);
    this.#view.setUint16(at + 2, type, LITTLE_ENDIAN);
    return at + ATTRIBUTE_BYTES;
  }

  bytes(type: number, value: Uint8Array): this {
    const at = this.#attribute(type, value.length); // first: it may move #bytes
    this.#bytes.set(value, at);
    return this;
  }

  u32(type: number, value: number): this {
    const at = this.#attribute(type, 4);
    this.#view.setUint32(at, value, LITTLE_ENDIAN);
    return this;
  }

  /** A string with the terminating zero that the kernel's NLA_STRING users expect. */
  text(type: number, value: string): this {
    const text = encoder.encode(value);
    const at = this.#attribute(type, text.length + 1);
    this.#bytes.set(text, at);
    return this;
  }

  /** A nested attribute that holds whatever `fill` appends. */
  nest(type: number, fill: (builder: this) => void): this {
    const start = this.#attribute(type | NLA_F_NESTED, 0) - ATTRIBUTE_BYTES;
    fill(this);
    const count = this.#length - start;
    if (count > 0xffff) throw new NetlinkError('EMSGSIZE', 'netlink attribute longer than 65535 bytes');
    this.#view.setUint16(start, count, LITTLE_ENDIAN);
    return this;
  }

  finish(sequence: number): Uint8Array {
    this.#view.setUint32(LENGTH_AT, this.#length, LITTLE_ENDIAN);
    this.#view.setUint32(SEQUENCE_AT, sequence, LITTLE_ENDIAN);
    return this.#bytes.subarray(0, this.#length);
  }
}

// ---- parsing -------------------------------------------------------------------------------------------------------

export interface Message {
  type: number;
  flags: number;
  sequence: number;
  port: number;
  /** borrowed: the bytes after the header, valid until the receive buffer is filled again. */
  payload: Uint8Array;
}

const malformed = (what: string): NetlinkError => new NetlinkError('EBADMSG', `malformed netlink message: ${what}`);

/** Splits what one receive gave into messages. */
export function parseMessages(bytes: Uint8Array): Message[] {
  const view = viewOf(bytes);
  const messages: Message[] = [];
  let at = 0;
  while (at < bytes.length) {
    const available = bytes.length - at;
    if (available < HEADER_BYTES) throw malformed(`${available} bytes where a header of 16 should be`);
    const length = view.getUint32(at + LENGTH_AT, LITTLE_ENDIAN);
    if (length < HEADER_BYTES || length > available)
      throw malformed(`length ${length} with ${available} bytes at hand`);
    messages.push({
      type: view.getUint16(at + TYPE_AT, LITTLE_ENDIAN),
      flags: view.getUint16(at + FLAGS_AT, LITTLE_ENDIAN),
      sequence: view.getUint32(at + SEQUENCE_AT, LITTLE_ENDIAN),
      port: view.getUint32(at + PORT_AT, LITTLE_ENDIAN),
      payload: bytes.subarray(at + HEADER_BYTES, at + length),
    });
    at += align(length);
  }
  return messages;
}

/** The attributes by type, flags taken off; of a repeated one the last stays, as in the kernel's nla_parse. */
export type Attributes = ReadonlyMap<number, Uint8Array>;

/** Parses the attributes from `offset` on. Up to 3 bytes at the end are padding. */
export function parseAttributes(bytes: Uint8Array, offset = 0): Attributes {
  const view = viewOf(bytes);
  const attributes = new Map<number, Uint8Array>();
  let at = offset;
  while (bytes.length - at >= ATTRIBUTE_BYTES) {
    const length = view.getUint16(at, LITTLE_ENDIAN);
    if (length < ATTRIBUTE_BYTES || length > bytes.length - at) {
      throw malformed(`attribute of length ${length} with ${bytes.length - at} bytes at hand`);
    }
    attributes.set(
      view.getUint16(at + 2, LITTLE_ENDIAN) & NLA_TYPE_MASK,
      bytes.subarray(at + ATTRIBUTE_BYTES, at + length),
    );
    at += align(length);
  }
  return attributes;
}

/** The values of a list: attributes that follow each other and may all have one type. */
export function parseList(bytes: Uint8Array): Uint8Array[] {
  const items: Uint8Array[] = [];
  for (let at = 0; bytes.length - at >= ATTRIBUTE_BYTES; ) {
    const length = viewOf(bytes).getUint16(at, LITTLE_ENDIAN);
    if (length < ATTRIBUTE_BYTES || length > bytes.length - at) {
      throw malformed(`list item of length ${length} with ${bytes.length - at} bytes at hand`);
    }
    items.push(bytes.subarray(at + ATTRIBUTE_BYTES, at + length));
    at += align(length);
  }
  return items;
}

/** The fixed structure at the start of a payload, as a view of exactly `count` bytes. */
export function parseBody(payload: Uint8Array, count: number): DataView {
  if (payload.length < count) throw malformed(`${payload.length} bytes of body where ${count} should be`);
  return new DataView(payload.buffer, payload.byteOffset, count);
}

/** Numbers in the bodies that `parseBody` gives and in values. */
export const u16At = (view: DataView, offset: number): number => view.getUint16(offset, LITTLE_ENDIAN);
export const u32At = (view: DataView, offset: number): number => view.getUint32(offset, LITTLE_ENDIAN);
export const i32At = (view: DataView, offset: number): number => view.getInt32(offset, LITTLE_ENDIAN);

/** A 32-bit attribute; undefined when absent. */
export function u32Of(attributes: Attributes, type: number): number | undefined {
  const value = attributes.get(type);
  return value === undefined ? undefined : u32At(parseBody(value, 4), 0);
}

export function u8Of(attributes: Attributes, type: number): number | undefined {
  const value = attributes.get(type);
  return value === undefined ? undefined : parseBody(value, 1).getUint8(0);
}

/** A string attribute up to its first zero byte; undefined when absent. */
export function textOf(attributes: Attributes, type: number): string | undefined {
  const value = attributes.get(type);
  if (value === undefined) return undefined;
  const end = value.indexOf(0);
  return decoder.decode(end < 0 ? value : value.subarray(0, end));
}

/** The attributes inside an attribute; an empty map when absent. */
export function nestedOf(attributes: Attributes, type: number): Attributes {
  const value = attributes.get(type);
  return value === undefined ? new Map() : parseAttributes(value);
}

export interface Acknowledgement {
  /** 0, or a positive errno number. */
  errno: number;
  /** The kernel's own words (NLMSGERR_ATTR_MSG), when it had any. */
  text?: string;
}

/**
 * Reads an NLMSG_ERROR, or the NLMSG_DONE that ends a dump. After the error number an NLMSG_ERROR repeats the request
 * (its header only, when NLM_F_CAPPED); the extended acknowledgement follows that. Source: net/netlink/af_netlink.c,
 * netlink_ack and netlink_dump_done.
 */
export function parseAcknowledgement(message: Message): Acknowledgement {
  const { type, flags, payload } = message;
  // A DONE of an old kernel may come without the number.
  if (type === NLMSG_DONE && payload.length < 4) return { errno: 0 };
  const errno = -i32At(parseBody(payload, 4), 0);
  if (errno < 0) throw malformed(`error number ${-errno}`);
  if ((flags & NLM_F_ACK_TLVS) === 0) return { errno };
  let at = 4;
  if (type === NLMSG_ERROR) {
    const requestLength = u32At(parseBody(payload.subarray(4), HEADER_BYTES), LENGTH_AT);
    at += (flags & NLM_F_CAPPED) === 0 ? align(requestLength) : HEADER_BYTES;
  }
  if (at > payload.length || at < 4) throw malformed('the repeated request is longer than the message');
  const text = textOf(parseAttributes(payload, at), NLMSGERR_ATTR_MSG);
  return text === undefined ? { errno } : { errno, text };
}
