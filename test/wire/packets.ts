/** Packets for tests: built by functions from named fields, in poisoned buffers whose borders are looked at afterwards. */
import { emitIp4, IP4_DONT_FRAGMENT, IP4_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP } from '../../lib/wire/ip4.ts';
import { finishL4Checksum4 } from '../../lib/wire/l4.ts';
import { emitTcp, TCP_ACK, TCP_HEADER_BYTES } from '../../lib/wire/tcp.ts';
import { emitUdp, UDP_HEADER_BYTES } from '../../lib/wire/udp.ts';

export const POISON = 0xa5;
const BORDER = 32;

/** `length` bytes at `offset` of a larger buffer, all of it poison. */
export interface Poisoned {
  bytes: Uint8Array;
  offset: number;
  length: number;
}

export function poisoned(length: number): Poisoned {
  return { bytes: new Uint8Array(BORDER + length + BORDER).fill(POISON), offset: BORDER, length };
}

/** True when nothing outside [offset, offset + length) was written. */
export function bordersIntact(place: Poisoned): boolean {
  const { bytes, offset, length } = place;
  return bytes.every((byte, i) => (i >= offset && i < offset + length) || byte === POISON);
}

export function contentOf(place: Poisoned): Uint8Array {
  return place.bytes.slice(place.offset, place.offset + place.length);
}

export function fromHex(hex: string): Uint8Array {
  const digits = hex.replace(/\s+/g, '');
  return Uint8Array.from({ length: digits.length / 2 }, (_, i) => Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16));
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('');
}

export interface Tcp4Fields {
  source?: number;
  destination?: number;
  id?: number;
  ttl?: number;
  tos?: number;
  sourcePort?: number;
  destinationPort?: number;
  sequence?: number;
  acknowledgement?: number;
  flags?: number;
  window?: number;
  /** A multiple of 4 bytes. */
  options?: Uint8Array;
  payload?: Uint8Array;
}

/** A whole IPv4 TCP packet with right checksums. */
export function buildTcp4(fields: Tcp4Fields = {}): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  const payload = fields.payload ?? new Uint8Array(0);
  const tcpLength = TCP_HEADER_BYTES + options.length;
  const packet = new Uint8Array(IP4_HEADER_BYTES + tcpLength + payload.length).fill(POISON);
  emitIp4(
    packet,
    0,
    fields.tos ?? 0,
    packet.length,
    fields.id ?? 7,
    IP4_DONT_FRAGMENT,
    fields.ttl ?? 64,
    PROTOCOL_TCP,
    fields.source ?? 0x0a050102,
    fields.destination ?? 0x0a050202,
  );
  emitTcp(
    packet,
    IP4_HEADER_BYTES,
    fields.sourcePort ?? 40000,
    fields.destinationPort ?? 80,
    fields.sequence ?? 1000,
    fields.acknowledgement ?? 2000,
    tcpLength,
    fields.flags ?? TCP_ACK,
    fields.window ?? 502,
  );
  packet.set(options, IP4_HEADER_BYTES + TCP_HEADER_BYTES);
  packet.set(payload, IP4_HEADER_BYTES + tcpLength);
  finishL4Checksum4(packet, 0);
  return packet;
}

/** A whole IPv4 UDP packet with right checksums. */
export function buildUdp4(payload: Uint8Array, id = 7): Uint8Array {
  const packet = new Uint8Array(IP4_HEADER_BYTES + UDP_HEADER_BYTES + payload.length).fill(POISON);
  emitIp4(packet, 0, 0, packet.length, id, IP4_DONT_FRAGMENT, 64, PROTOCOL_UDP, 0x0a050102, 0x0a050202);
  emitUdp(packet, IP4_HEADER_BYTES, 40000, 53, UDP_HEADER_BYTES + payload.length);
  packet.set(payload, IP4_HEADER_BYTES + UDP_HEADER_BYTES);
  finishL4Checksum4(packet, 0);
  return packet;
}

/** A copy with one thing spoiled. */
export function spoil(packet: Uint8Array, change: (bytes: Uint8Array) => void): Uint8Array {
  const copy = packet.slice();
  change(copy);
  return copy;
}

/**
 * Packets that Linux 6.18 sent to a TUN without offloads, so that the kernel itself finished every checksum: from
 * 10.5.1.2 to 10.5.2.2 and from fd00::1 to fd00::2.
 */
export const CAPTURED = {
  udp4: '45000021a871400040117b4d0a0501020a0502029c400035000d087f68656c6c6f',
  tcp4: '4500003cc31b4000400660930a0501020a0502029c4100501e8bc9f000000000a002ff28b01900000204058c0402080ae1711b56000000000103030a',
  icmp4: '450000237eb840004001a5140a0501020a05020208009cacca23000261626364656667',
  udp6: '60033e17000e1140fd000000000000000000000000000001fd0000000000000000000000000000029c400035000e256568656c6c6f21',
  icmp6:
    '600f0cba000f3a40fd000000000000000000000000000001fd00000000000000000000000000000280002a5dca24000261626364656667',
  /** Net Unreachable about `unroutable`, from 10.5.1.2. */
  unreachable4:
    '45c000387f0f00004001e3e80a0501020a0502020300fc8c000000004500001c000700000111a3bd0a0502020a0600010035003600080000',
  unroutable: '4500001c000700000111a3bd0a0502020a0600010035003600080000',
} as const;
