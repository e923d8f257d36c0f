/**
 * "--peer": whose packets are wanted. A subnet or an address of the pod network means the peer that holds it, another
 * address (with or without a port) the peer with that endpoint, a word the node of that name.
 */
import type { CaptureRecord } from '../../datapath/capture-ring.ts';
import { TulleError } from '../../util/errors.ts';
import { contains4, formatCidr4, maskOf, overlaps4, parseCidr4, type Subnet4 } from '../../wire/cidr.ts';
import { checkIp4, ip4Destination, ip4Source, parseAddress4 } from '../../wire/ip4.ts';
import { formatAddress6, parseAddress6 } from '../../wire/ip6.ts';
import { isDatagram, remoteOf, subnetOf } from './packet.ts';

/** A peer as its lease describes it. */
export interface CapturePeer {
  subnet: Subnet4;
  node: string | undefined;
  /** Its underlay addresses. */
  addresses: readonly string[];
}

export interface PeerFilter {
  /** The subnets whose packets the worker must capture; it captures those that belong to nobody besides. */
  subnets(peers: readonly CapturePeer[]): Subnet4[];
  matches(record: CaptureRecord): boolean;
}

/** @throws TulleError 'bad-peer' */
export function peerFilter(text: string, network: Subnet4, peers: readonly CapturePeer[]): PeerFilter {
  const subnet = parseCidr4(text) ?? hostNet(text);
  if (subnet !== undefined && overlaps4(subnet, network)) return ofSubnet(subnet);
  const endpoint = parseEndpoint(text);
  if (endpoint !== undefined) return ofEndpoint(endpoint, peers);
  const named = peers.filter(({ node }) => node === text);
  if (named.length === 0) throw new TulleError('bad-peer', `no peer is called "${text}": ${names(peers)}`);
  const subnets = named.map(peer => peer.subnet);
  const filters = subnets.map(ofSubnet);
  return { subnets: () => subnets, matches: record => filters.some(filter => filter.matches(record)) };
}

function names(peers: readonly CapturePeer[]): string {
  if (peers.length === 0) return 'this node has no peers yet';
  const known = peers.slice(0, 8).map(({ node, subnet }) => node ?? formatCidr4(subnet));
  return `this node knows ${known.join(', ')}${peers.length > 8 ? ' …' : ''}; or give a subnet or an underlay address`;
}

function hostNet(text: string): Subnet4 | undefined {
  const address = parseAddress4(text);
  return address === undefined ? undefined : { address, prefixLength: 32 };
}

function ofSubnet(wanted: Subnet4): PeerFilter {
  const net = { address: (wanted.address & maskOf(wanted.prefixLength)) >>> 0, prefixLength: wanted.prefixLength };
  return {
    subnets: peers => peers.filter(({ subnet }) => overlaps4(net, subnet)).map(({ subnet }) => subnet),
    matches(record) {
      const subnet = subnetOf(record);
      if (subnet >= 0) {
        const length = Math.clz32(~record.mask);
        return overlaps4(net, { address: subnet, prefixLength: length });
      }
      if (isDatagram(record)) return false;
      // A packet that belongs to no peer, as one for which there is no lease, is meant by its inner addresses.
      const { bytes, offset, captured, length } = record;
      if (captured < 20 || checkIp4(bytes, offset, length) !== 0) return false;
      return contains4(net, ip4Source(bytes, offset)) || contains4(net, ip4Destination(bytes, offset));
    },
  };
}

interface Endpoint {
  address: string;
  port: number | undefined;
}

/** "10.88.0.2", "10.88.0.2:8285", "2001:db8::2" or "[2001:db8::2]:8285". */
function parseEndpoint(text: string): Endpoint | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::(\d{1,5}))?$/i.exec(text);
  const host = match === null ? text : (match[1] ?? match[2]);
  const port = match?.[3] === undefined ? undefined : Number(match[3]);
  if (port !== undefined && (port === 0 || port > 65_535)) return undefined;
  if (parseAddress4(host) !== undefined) return { address: host, port };
  const six = parseAddress6(host);
  return six === undefined ? undefined : { address: formatAddress6(six), port };
}

function ofEndpoint({ address, port }: Endpoint, known: readonly CapturePeer[]): PeerFilter {
  const subnetsOf = (peers: readonly CapturePeer[]): Subnet4[] =>
    peers.filter(({ addresses }) => addresses.includes(address)).map(({ subnet }) => subnet);
  const inner = new Set(subnetsOf(known).map(subnet => subnet.address));
  return {
    subnets(peers) {
      const subnets = subnetsOf(peers);
      for (const subnet of subnets) inner.add(subnet.address);
      return subnets;
    },
    matches(record) {
      // The worker names the peer of a packet on the TUN, too, so its endpoint is there.
      const remote = remoteOf(record);
      if (remote.family === 0) return inner.has(subnetOf(record));
      return remote.address === address && (port === undefined || remote.port === port);
    },
  };
}
