/**
 * A pcapng file to records: what "tulle capture" wrote, with its interfaces and comments, and what tcpdump or Wireshark
 * recorded on a node's link, of which the datagrams of an overlay are taken. Pure; throws one line for a person.
 */
import { type PcapngInterface, type PcapngPacket, readPcapng } from '../../wire/pcapng-read.ts';
import { TULLE_VERSION } from '../../wire/tulle.ts';
import { payloadOfOuter } from './identity.ts';
import type { PacketRecord, Place } from './model.ts';

const LINKTYPE_ETHERNET = 1;
const LINKTYPE_LINUX_SLL = 113;
const LINKTYPE_LINUX_SLL2 = 276;
const RAW = new Set([12, 14, 101, 228, 229]);
const PORT = 8285;

export function recordsOfCapture(file: Uint8Array): PacketRecord[] {
  const { interfaces, packets, fault } = readPcapng(file);
  if (packets.length === 0 && fault !== undefined) throw new Error(fault.reason);
  const records: PacketRecord[] = [];
  for (const packet of packets) {
    const record = recordOf(packet, interfaces[packet.interface]);
    if (record !== undefined) records.push(record);
  }
  return records;
}

function recordOf(packet: PcapngPacket, from: PcapngInterface): PacketRecord | undefined {
  const skipped = linkHeader(packet.data, from.linkType);
  if (skipped === undefined || skipped >= packet.data.length) return undefined;
  const bytes = packet.data.slice(skipped);
  const { node, place } = placeOf(bytes, packet, from);
  if (place === undefined) return undefined;
  const comment = packet.comments.join('; ');
  const drop = /\bdrop(?:ped)?[:= ]+([a-z0-9-]+)/.exec(comment)?.[1];
  return {
    node,
    place,
    atUs: packet.time === undefined ? 0 : Number(packet.time / 1000n),
    bytes,
    length: Math.max(bytes.length, packet.length - skipped),
    ...(drop !== undefined && { drop }),
    ...(comment !== '' && { comment }),
  };
}

/** "node1:tulle0" or "tulle0": the node, and whether it is the TUN or the underlay. */
function placeOf(
  bytes: Uint8Array,
  { direction }: PcapngPacket,
  { name }: PcapngInterface,
): { node: string; place: Place | undefined } {
  const cut = name.lastIndexOf(':');
  const node = cut < 0 ? '' : name.slice(0, cut);
  const isTun = /tulle|tun|flannel|overlay|inner/.test(name.slice(cut + 1));
  if (!isTun && !isDatagram(bytes)) return { node, place: undefined };
  // Seen from the kernel, as by tcpdump: what it gives to tulled goes out of the device.
  if (isTun) return { node, place: direction === 'in' ? 'tun-write' : 'tun-read' };
  return { node, place: direction === 'in' ? 'udp-receive' : 'udp-send' };
}

/** UDP from or to port 8285 that begins as a datagram of ours or of flannel's. */
function isDatagram(bytes: Uint8Array): boolean {
  const at = payloadOfOuter(bytes);
  if (at < 0 || at >= bytes.length) return false;
  const ports = [bytes[at - 8] * 256 + bytes[at - 7], bytes[at - 6] * 256 + bytes[at - 5]];
  const version = bytes[at] >>> 4;
  return ports.includes(PORT) && (version === TULLE_VERSION || version === 4);
}

/** Bytes before the IP header; undefined: no IP packet, or a link type that we do not know. */
function linkHeader(bytes: Uint8Array, linkType: number): number | undefined {
  if (RAW.has(linkType)) return 0;
  const [at, length] =
    linkType === LINKTYPE_ETHERNET
      ? [12, 14]
      : linkType === LINKTYPE_LINUX_SLL
        ? [14, 16]
        : linkType === LINKTYPE_LINUX_SLL2
          ? [0, 20]
          : [-1, 0];
  if (at < 0 || bytes.length < length) return undefined;
  const protocol = bytes[at] * 256 + bytes[at + 1];
  return protocol === 0x0800 || protocol === 0x86dd ? length : undefined;
}
