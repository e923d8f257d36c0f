/**
 * A forged datagram: what somebody on the underlay could send who wants to be a node. Only in the lab, and only to see it
 * refused. The bytes are those of docs/wire.md.
 *
 *   outer IP 20 | UDP 8 | tulle 12 (not in flannel's format) | inner IP 20 | ICMP echo 8
 */
import * as sys from '../sys/sys.ts';
import { finishPartial, pseudoSum4 } from '../wire/checksum.ts';
import { emitEcho4, ICMP4_ECHO_REQUEST } from '../wire/icmp.ts';
import { emitIp4, PROTOCOL_ICMP, PROTOCOL_UDP } from '../wire/ip4.ts';
import { emitTulle, HEADER_BYTES, KIND_PACKET } from '../wire/tulle.ts';
import { emitUdp, setUdpChecksum, UDP_CHECKSUM } from '../wire/udp.ts';

/** IPPROTO_RAW: the packet brings its own header, so any source will do. */
const BRINGS_ITS_HEADER = 255;
const IP = 20;
const UDP = 8;
const ICMP = 8;
const TTL = 64;

export interface Forgery {
  /** Outer addresses, as numbers, and the port of both. */
  readonly from: number;
  readonly to: number;
  readonly port: number;
  /** The lease key that it claims; undefined: flannel's format, which has none. */
  readonly key: number | undefined;
  /** Inner addresses. */
  readonly source: number;
  readonly destination: number;
}

/** The whole packet, checksums and all: nothing about its form is wrong. */
export function forgedPacket({ from, to, port, key, source, destination }: Forgery): Uint8Array {
  const header = key === undefined ? 0 : HEADER_BYTES;
  const bytes = new Uint8Array(IP + UDP + header + IP + ICMP);
  const inner = IP + UDP + header;
  emitIp4(bytes, 0, 0, bytes.length, 1, 0, TTL, PROTOCOL_UDP, from, to);
  emitUdp(bytes, IP, port, port, bytes.length - IP);
  if (key !== undefined) emitTulle(bytes, IP + UDP, KIND_PACKET, 0, 0, key, 0, 0);
  emitIp4(bytes, inner, 0, IP + ICMP, 1, 0, TTL, PROTOCOL_ICMP, source, destination);
  emitEcho4(bytes, inner + IP, ICMP4_ECHO_REQUEST, 1, 1, 0);
  setUdpChecksum(bytes, IP, pseudoSum4(bytes, 0, PROTOCOL_UDP, bytes.length - IP));
  finishPartial(bytes, IP, UDP_CHECKSUM, bytes.length);
  return bytes;
}

/** Sends it so many times from a namespace. */
export function sendForged(namespaceFile: string, packet: Uint8Array, to: string, count: number): void {
  const handle = sys.openRaw({ family: 4, protocol: BRINGS_ITS_HEADER, namespace: namespaceFile });
  try {
    for (let i = 0; i < count; i++) sys.rawSend(handle, packet, to);
  } finally {
    sys.close(handle);
  }
}
