/** What a kernel does with a write to its TUN, naively: the packets that a pod without offloads would see. */
import { finishPartial } from '../../lib/wire/checksum.ts';
import { isIp6, l4DistanceOf, protocolOf } from '../../lib/wire/either.ts';
import { PROTOCOL_TCP, setIp4Checksum } from '../../lib/wire/ip4.ts';
import { finishL4Checksum4, finishL4Checksum6 } from '../../lib/wire/l4.ts';
import { TCP_CWR, TCP_FIN, TCP_PSH } from '../../lib/wire/tcp.ts';
import { VNET_GSO_NONE, VNET_HEADER_BYTES, vnetGsoSize, vnetGsoType } from '../../lib/wire/vnet.ts';

/** Cuts a write of either version of IP and finishes every checksum. */
export function packetsOf(written: Uint8Array): Uint8Array[] {
  const packet = written.slice(VNET_HEADER_BYTES);
  if (vnetGsoType(written, 0) === VNET_GSO_NONE) {
    if ((written[0] & 1) !== 0) finishPartial(packet, written[6] | (written[7] << 8), written[8], packet.length);
    return [packet];
  }
  const six = isIp6(packet, 0);
  const size = vnetGsoSize(written, 0);
  const l4 = l4DistanceOf(packet, 0);
  const tcp = protocolOf(packet, 0) === PROTOCOL_TCP;
  const headers = l4 + (tcp ? (packet[l4 + 12] >>> 4) * 4 : 8);
  const cut: Uint8Array[] = [];
  for (let at = headers, i = 0; at < packet.length; at += size, i++) {
    const piece = Uint8Array.from([...packet.slice(0, headers), ...packet.slice(at, at + size)]);
    const view = new DataView(piece.buffer);
    if (six) view.setUint16(4, piece.length - 40);
    else {
      view.setUint16(2, piece.length);
      view.setUint16(4, view.getUint16(4) + i);
      setIp4Checksum(piece, 0);
    }
    if (tcp) {
      view.setUint32(l4 + 4, view.getUint32(l4 + 4) + i * size);
      if (at + size < packet.length) piece[l4 + 13] &= ~(TCP_FIN | TCP_PSH);
      if (i > 0) piece[l4 + 13] &= ~TCP_CWR;
    } else view.setUint16(l4 + 4, piece.length - l4);
    if (six) finishL4Checksum6(piece, 0);
    else finishL4Checksum4(piece, 0);
    cut.push(piece);
  }
  return cut;
}
