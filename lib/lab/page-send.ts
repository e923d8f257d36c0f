/** One packet on demand, or a short stream, from pod to pod: what the page's "Send and watch" does. */
import * as sys from '../sys/sys.ts';
import { finish, pseudoSum4, sum } from '../wire/checksum.ts';
import { contains4, parseCidr4, sizeOf } from '../wire/cidr.ts';
import { emitIp4, formatAddress4, IP4_HEADER_BYTES, PROTOCOL_UDP, parseAddress4 } from '../wire/ip4.ts';
import { emitUdp, setUdpChecksum, UDP_HEADER_BYTES } from '../wire/udp.ts';
import { type End, measureTcp } from './measure.ts';
import { usageError } from './options.ts';
import { ping } from './ping.ts';

/** An echo that is not answered in this time is not waited for. */
const ANSWER_MS = 1500;
const UDP_FROM = 40_000;
/** Discard (RFC 863): nobody listens, and the pod says so. */
const UDP_TO = 9;
const LIMITS = { icmp: [8, 4000], udp: [1, 4000], tcp: [1, 60_000] } as const;

export type SendKind = keyof typeof LIMITS;

/** Sends it, and says in one line what came of it. `size`: bytes of payload. */
export async function sendPacket(from: End, to: End, kind: SendKind, size: number): Promise<string> {
  const way = `${from.name} → ${to.name}`;
  if (kind === 'icmp') {
    const options = { count: 1, intervalMs: 0, timeoutMs: ANSWER_MS, bytes: IP4_HEADER_BYTES + 8 + size };
    const { rttsMs } = await ping(from.namespaceFile, to.address, options);
    return rttsMs.length === 0 ? `${way}: no answer` : `${way}: answered in ${rttsMs[0].toFixed(2)} ms`;
  }
  if (kind === 'udp') {
    sendUdpPacket(from, to, size);
    return `${way}: one UDP packet to port ${UDP_TO}, where nobody listens`;
  }
  const { ms } = await measureTcp(from, to, { bytes: size, seed: 1 });
  return `${way}: ${size} bytes over TCP in ${ms.toFixed(1)} ms`;
}

/** What the form calls an address that nobody leases: what is sent there is dropped, and the sender is told. */
export const NOBODY = 'nobody';

/** What the form asked for, checked; `free` is an address that nobody leases. Throws TulleError 'usage'. */
export function sendOf(
  body: unknown,
  pods: readonly End[],
  free: string,
): { from: End; to: End; kind: SendKind; size: number } {
  const { from, to, kind, size } = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>;
  const podOf = (name: unknown): End => {
    const found = pods.find(pod => pod.name === name);
    if (found === undefined) throw usageError(`there is no pod "${String(name).slice(0, 40)}"`);
    return found;
  };
  const source = podOf(from);
  const target =
    to === NOBODY ? { name: 'an address that nobody leases', namespaceFile: '', address: free } : podOf(to);
  if (to === NOBODY && kind === 'tcp') throw usageError('nobody is there to take a stream: send a ping or UDP');
  if (source === target) throw usageError('choose two pods');
  if (kind !== 'icmp' && kind !== 'udp' && kind !== 'tcp') throw usageError('a packet is icmp, udp or tcp');
  const [least, most] = LIMITS[kind];
  if (typeof size !== 'number' || !Number.isInteger(size) || size < least || size > most)
    throw usageError(`${kind} takes ${least} to ${most} bytes`);
  return { from: source, to: target, kind, size };
}

function sendUdpPacket(from: End, to: End, size: number): void {
  // The raw socket puts the IP header in front; ours is there only for the checksum's pseudo-header.
  const length = UDP_HEADER_BYTES + size;
  const packet = new Uint8Array(IP4_HEADER_BYTES + length);
  const [source, destination] = [parseAddress4(from.address) ?? 0, parseAddress4(to.address) ?? 0];
  emitIp4(packet, 0, 0, packet.length, 0, 0, 64, PROTOCOL_UDP, source, destination);
  emitUdp(packet, IP4_HEADER_BYTES, UDP_FROM, UDP_TO, length);
  for (let i = 0; i < size; i++) packet[IP4_HEADER_BYTES + UDP_HEADER_BYTES + i] = 0x20 + (i % 95);
  const pseudo = pseudoSum4(packet, 0, PROTOCOL_UDP, length);
  setUdpChecksum(packet, IP4_HEADER_BYTES, finish(sum(packet, IP4_HEADER_BYTES, length, pseudo)) || 0xffff);
  const handle = sys.openRaw({ family: 4, protocol: PROTOCOL_UDP, namespace: from.namespaceFile });
  try {
    sys.rawSend(handle, packet.subarray(IP4_HEADER_BYTES), to.address);
  } finally {
    sys.close(handle);
  }
}

/** An address of the network in a subnet that is not among these; all of one length. */
export function freeAddress(network: string, subnets: readonly string[]): string {
  const whole = parseCidr4(network);
  const taken = subnets.map(parseCidr4).filter(subnet => subnet !== undefined);
  if (whole === undefined || taken.length === 0) return '0.0.0.0';
  const size = sizeOf(taken[0].prefixLength);
  // From the end, because leases are drawn from everywhere and the last subnet is as good as any.
  for (let base = whole.address + sizeOf(whole.prefixLength) - size; base >= whole.address; base -= size) {
    if (!taken.some(subnet => contains4(subnet, base))) return formatAddress4(base + 2);
  }
  return '0.0.0.0';
}
