/**
 * An example to begin with where there is nothing else yet: two nodes, a ping across and back, a piece of a TCP stream as
 * segments, a packet that nobody holds a lease for and one that is refused. Built with lib/wire's own functions. Pure.
 */
import { emitEcho4, ICMP_HEADER_BYTES, ICMP4_ECHO_REPLY, ICMP4_ECHO_REQUEST } from '../../wire/icmp.ts';
import {
  emitIp4,
  IP4_DONT_FRAGMENT,
  IP4_HEADER_BYTES,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  parseAddress4,
} from '../../wire/ip4.ts';
import { finishL4Checksum4, startL4Checksum4 } from '../../wire/l4.ts';
import { emitTcp, TCP_ACK, TCP_HEADER_BYTES, TCP_PSH } from '../../wire/tcp.ts';
import {
  emitTulle,
  FLAG_LAST_SEGMENT,
  FLAG_PARTIAL_CHECKSUM,
  HEADER_BYTES,
  KIND_PACKET,
  KIND_SEGMENT,
} from '../../wire/tulle.ts';
import { emitUdp, UDP_HEADER_BYTES } from '../../wire/udp.ts';
import { hopsLater } from './derive.ts';
import type { LeaseHistory, NetworkView, NodeView, PacketRecord } from './model.ts';

const NETWORK = '10.42.0.0/16';
const PORT = 8285;
const SLICE = 1408;

interface Host {
  name: string;
  address: string;
  subnet: string;
  pod: string;
  key: number;
}

const NEAR: Host = { name: 'node1', address: '10.88.0.1', subnet: '10.42.7.0/24', pod: '10.42.7.2', key: 1 };
const FAR: Host = { name: 'node2', address: '10.88.0.2', subnet: '10.42.9.0/24', pod: '10.42.9.2', key: 2 };

const number = (text: string): number => parseAddress4(text) ?? 0;

/** A pod's packet as the TUN gives it, one hop from its pod. */
function packet(
  source: string,
  destination: string,
  protocol: number,
  id: number,
  l4: (bytes: Uint8Array, at: number) => number,
): Uint8Array {
  const bytes = new Uint8Array(65_536);
  const length = IP4_HEADER_BYTES + l4(bytes, IP4_HEADER_BYTES);
  emitIp4(bytes, 0, 0, length, id, IP4_DONT_FRAGMENT, 63, protocol, number(source), number(destination));
  return bytes.slice(0, length);
}

function echo(type: number, from: Host, to: Host, sequence: number): Uint8Array {
  return packet(from.pod, to.pod, PROTOCOL_ICMP, type === ICMP4_ECHO_REQUEST ? 0x1f3a : 0x7c11, (bytes, at) => {
    for (let i = 0; i < 56; i++) bytes[at + ICMP_HEADER_BYTES + i] = i < 8 ? 0 : 8 + i;
    return emitEcho4(bytes, at, type, 4711, sequence, 56);
  });
}

function stream(from: Host, to: Host, payload: number): Uint8Array {
  const bytes = packet(from.pod, to.pod, PROTOCOL_TCP, 0x2000, (bytes, at) => {
    for (let i = 0; i < payload; i++) bytes[at + TCP_HEADER_BYTES + i] = 0x61 + (i % 26);
    return emitTcp(bytes, at, 40_000, 80, 1_000_001, 77, TCP_HEADER_BYTES, TCP_ACK | TCP_PSH, 502) + payload;
  });
  startL4Checksum4(bytes, 0, IP4_HEADER_BYTES, bytes.length - IP4_HEADER_BYTES);
  return bytes;
}

function question(source: string, destination: string, id: number): Uint8Array {
  const bytes = packet(source, destination, PROTOCOL_UDP, id, (bytes, at) => {
    for (let i = 0; i < 24; i++) bytes[at + UDP_HEADER_BYTES + i] = 0x41 + i;
    emitUdp(bytes, at, 40_001, 53, UDP_HEADER_BYTES + 24);
    return UDP_HEADER_BYTES + 24;
  });
  finishL4Checksum4(bytes, 0);
  return bytes;
}

/** The outer packet around a tulle datagram. */
function outer(from: Host, to: Host, id: number, content: Uint8Array): Uint8Array {
  const length = IP4_HEADER_BYTES + UDP_HEADER_BYTES + content.length;
  const bytes = new Uint8Array(length);
  emitIp4(bytes, 0, 0, length, id, IP4_DONT_FRAGMENT, 64, PROTOCOL_UDP, number(from.address), number(to.address));
  emitUdp(bytes, IP4_HEADER_BYTES, PORT, PORT, length - IP4_HEADER_BYTES);
  bytes.set(content, IP4_HEADER_BYTES + UDP_HEADER_BYTES);
  finishL4Checksum4(bytes, 0);
  return bytes;
}

function withHeader(
  key: number,
  inner: Uint8Array,
  kind = KIND_PACKET,
  flags = 0,
  size = 0,
  id = 0,
  index = 0,
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + inner.length);
  emitTulle(bytes, 0, kind, flags, size, key, id, index);
  bytes.set(inner, HEADER_BYTES);
  return bytes;
}

const later = (bytes: Uint8Array): Uint8Array => hopsLater({ bytes, captured: bytes.length }, 1).bytes;

/** Everything seen of one packet that crosses alone. */
function crossing(from: Host, to: Host, atUs: number, inner: Uint8Array, drop?: string): PacketRecord[] {
  const onTheWay = later(inner);
  const datagram = outer(from, to, atUs & 0xffff, withHeader(from.key, onTheWay));
  const record = (node: Host, place: PacketRecord['place'], after: number, bytes: Uint8Array): PacketRecord => ({
    node: node.name,
    place,
    atUs: atUs + after,
    bytes,
    length: bytes.length,
  });
  return [
    record(from, 'tun-read', 0, inner),
    record(from, 'udp-send', 9, datagram),
    { ...record(to, 'udp-receive', 31, datagram), ...(drop !== undefined && { drop }) },
    ...(drop === undefined ? [record(to, 'tun-write', 38, onTheWay)] : []),
  ];
}

function segmented(from: Host, to: Host, atUs: number, whole: Uint8Array): PacketRecord[] {
  const headers = IP4_HEADER_BYTES + TCP_HEADER_BYTES;
  const onTheWay = later(whole);
  const count = Math.ceil((whole.length - headers) / SLICE);
  const records: PacketRecord[] = [{ node: from.name, place: 'tun-read', atUs, bytes: whole, length: whole.length }];
  for (let i = 0; i < count; i++) {
    const slice = onTheWay.subarray(headers + i * SLICE, Math.min(whole.length, headers + (i + 1) * SLICE));
    const segment = new Uint8Array([...onTheWay.subarray(0, headers), ...slice]);
    const flags = FLAG_PARTIAL_CHECKSUM | (i === count - 1 ? FLAG_LAST_SEGMENT : 0);
    const bytes = outer(from, to, 0x3000 + i, withHeader(from.key, segment, KIND_SEGMENT, flags, SLICE, 45, i));
    records.push({
      node: from.name,
      place: 'udp-send',
      atUs: atUs + 20,
      bytes,
      length: bytes.length,
      comment: `train of ${count}`,
    });
    records.push({ node: to.name, place: 'udp-receive', atUs: atUs + 60, bytes, length: bytes.length });
  }
  records.push({ node: to.name, place: 'tun-write', atUs: atUs + 70, bytes: onTheWay, length: onTheWay.length });
  return records;
}

export function exampleRecords(): PacketRecord[] {
  const start = 1_790_000_000_000_000;
  return [
    ...crossing(NEAR, FAR, start, echo(ICMP4_ECHO_REQUEST, NEAR, FAR, 1)),
    ...crossing(FAR, NEAR, start + 90, echo(ICMP4_ECHO_REPLY, FAR, NEAR, 1)),
    ...segmented(NEAR, FAR, start + 5000, stream(NEAR, FAR, 3 * SLICE + 500)),
    {
      node: NEAR.name,
      place: 'tun-read',
      atUs: start + 9000,
      bytes: question(NEAR.pod, '10.42.200.9', 0x51),
      length: 52,
      drop: 'egress-no-lease',
    },
    ...crossing(NEAR, FAR, start + 12_000, question('10.42.30.3', FAR.pod, 0x52), 'ingress-spoofed-source'),
  ];
}

const nodeView = ({ name, address, subnet, key }: Host): NodeView => ({
  name,
  address,
  port: PORT,
  subnet,
  leaseKey: key,
  leaseEndsAtMs: null,
  healthy: true,
  note: 'transport offload',
  device: { name: 'tulle0', mtu: 1460 },
  underlayMtu: 1500,
  transport: 'offload',
  rates: {},
  drops: {},
});

export function exampleNetwork(): NetworkView {
  return {
    atMs: 0,
    name: 'example',
    network: NETWORK,
    underlay: '10.88.0.0/24',
    registry: 'file',
    nodes: [nodeView(NEAR), nodeView(FAR)],
    pods: [
      { name: 'pod1', node: NEAR.name, address: NEAR.pod, mtu: 1460 },
      { name: 'pod2', node: FAR.name, address: FAR.pod, mtu: 1460 },
    ],
    peers: [],
    faults: [],
  };
}

/** A registry's day: a third node comes, goes, and its subnet changes hands. */
export function exampleHistory(): LeaseHistory {
  const holding = (subnet: string, publicIp: string, nodeId: string, createRevision: number) => ({
    subnet,
    publicIp,
    nodeId,
    backend: 'tulle',
    reservation: false,
    createRevision,
    modRevision: createRevision,
  });
  const put = (revision: number, minute: number, subnet: string, publicIp: string, nodeId: string) => ({
    kind: 'put' as const,
    key: subnet.replace('/', '-'),
    holding: holding(subnet, publicIp, nodeId, revision),
    revision,
    atMs: Date.UTC(2026, 10, 21, 9, minute),
  });
  return {
    registry: 'example',
    since: 0,
    base: [],
    revision: 6,
    changes: [
      put(1, 0, NEAR.subnet, NEAR.address, NEAR.name),
      put(2, 1, FAR.subnet, FAR.address, FAR.name),
      put(3, 14, '10.42.30.0/24', '10.88.0.3', 'node3'),
      {
        kind: 'removed',
        key: '10.42.30.0-24',
        holding: holding('10.42.30.0/24', '10.88.0.3', 'node3', 3),
        revision: 4,
        atMs: Date.UTC(2026, 10, 21, 9, 41),
      },
      put(5, 52, '10.42.30.0/24', '10.88.0.4', 'node4'),
    ],
  };
}
