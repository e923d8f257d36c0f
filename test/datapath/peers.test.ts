import t from 'tap';
import { findPeer, type Peer, PeerTable, writeEndpoint } from '../../lib/datapath/peers.ts';
import { CONTROL_EPOCH, NO_LEASE, OWN_SUBNET, openSlab, PEER_BYTES, PEER_KEY } from '../../lib/datapath/slab.ts';
import { cidr, NETWORK, peerOfNode } from '../support/node.ts';
import { below, prng, testSeed } from '../support/prng.ts';

const keyAt = (slab: ReturnType<typeof openSlab>, place: number): number =>
  slab.words[((slab.peersOffset + place * PEER_BYTES) >> 2) + PEER_KEY];

/** The peer with this endpoint, or -1; the endpoint stands where a receive would put it. */
function find(slab: ReturnType<typeof openSlab>, address: number | Uint8Array, port: number): number {
  const place = slab.recordsOffset + 16;
  writeEndpoint(slab.bytes, place, address, port);
  return findPeer(slab, place >> 2);
}

t.test('a peer is found by its subnet and by its endpoint', async t => {
  const slab = openSlab(256);
  const table = new PeerTable(slab, NETWORK);
  table.own({ subnet: cidr('10.42.1.0/24') });
  table.update([peerOfNode(2), peerOfNode(3)], []);
  t.equal(slab.routes[1], OWN_SUBNET);
  t.equal(slab.routes[4], NO_LEASE);
  const two = peerOfNode(2);
  const place = slab.routes[2];
  t.equal(keyAt(slab, place), 102);
  t.equal(find(slab, two.address, two.port), place);
  t.equal(find(slab, two.address, 9), -1, 'another port is nobody');
  const socketAddress = slab.bytes.slice(
    slab.peersOffset + place * PEER_BYTES,
    slab.peersOffset + place * PEER_BYTES + 8,
  );
  t.same([...socketAddress], [2, 0, 8285 >> 8, 8285 & 255, 10, 88, 0, 2], 'a sockaddr_in');
  table.update([], [two.subnet]);
  t.equal(slab.routes[2], NO_LEASE);
  t.equal(find(slab, two.address, two.port), -1);
  table.update([], [two.subnet]);
  t.equal(table.size, 1, 'forgetting twice is fine');
});

t.test('a change takes a new place, and the old one is free only after another turn of the worker', async t => {
  const slab = openSlab(2);
  const table = new PeerTable(slab, { network: cidr('10.42.0.0/23'), subnetLength: 24 });
  const peer = { ...peerOfNode(1), subnet: cidr('10.42.1.0/24') };
  table.update([peer], []);
  const seen = new Set<number>([slab.routes[1]]);
  for (let i = 1; i < slab.peerCapacity; i++) {
    table.update([{ ...peer, key: i }], []);
    t.notOk(seen.has(slab.routes[1]), 'a place that a batch may look at is not used again');
    seen.add(slab.routes[1]);
  }
  t.throws(() => table.update([peer], [peer.subnet]), { code: 'peers-full' });
  t.equal(slab.routes[1] < OWN_SUBNET, true, 'and nothing has changed');
  slab.control[CONTROL_EPOCH]++;
  table.update([{ ...peer, key: 4242 }], []);
  t.equal(keyAt(slab, slab.routes[1]), 4242);
});

t.test('the newer of two leases with one endpoint is the one that speaks', async t => {
  const slab = openSlab(256);
  const table = new PeerTable(slab, NETWORK);
  const old = peerOfNode(2);
  const young = { ...peerOfNode(3), address: old.address, key: 999 };
  table.update([young, old], []);
  t.equal(find(slab, old.address, old.port), slab.routes[3]);
  table.update([], [young.subnet]);
  t.equal(find(slab, old.address, old.port), slab.routes[2]);
});

t.test('a subnet that is none of the network is refused', async t => {
  const table = new PeerTable(openSlab(256), NETWORK);
  t.throws(() => table.update([{ ...peerOfNode(1), subnet: cidr('10.43.0.0/24') }], []), { code: 'bad-subnet' });
  t.throws(() => table.own({ subnet: cidr('10.42.0.0/25') }), { code: 'bad-subnet' });
});

t.test('random histories agree with a map', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const slab = openSlab(256);
  const table = new PeerTable(slab, NETWORK);
  const naive = new Map<number, Peer>();
  for (let step = 0; step < 2_000; step++) {
    slab.control[CONTROL_EPOCH]++;
    const puts: Peer[] = [];
    const removals: number[] = [];
    for (let i = below(next, 4); i > 0; i--) {
      const k = below(next, 256);
      if (below(next, 3) === 0) {
        removals.push(k);
      } else {
        const endpoint = { address: next(), port: 1 + below(next, 65_535) };
        puts.push({ subnet: cidr(`10.42.${k}.0/24`), ...endpoint, key: next() | 0, format: below(next, 2) });
      }
    }
    table.update(
      puts,
      removals.map(k => cidr(`10.42.${k}.0/24`)),
    );
    for (const k of removals) naive.delete(k);
    for (const peer of puts) naive.set((peer.subnet.address >>> 8) & 255, peer);
    for (let k = 0; k < 256; k++) {
      const peer = naive.get(k);
      const route = slab.routes[k];
      const right =
        peer === undefined
          ? route === NO_LEASE
          : keyAt(slab, route) === peer.key && find(slab, peer.address, peer.port) === route;
      if (!right) {
        t.fail(`step ${step}, subnet ${k}`, { peer, route });
        return;
      }
    }
    if (find(slab, next(), 70_000) !== -1) {
      t.fail('found a peer that nobody made');
      return;
    }
  }
  t.equal(table.size, naive.size);
});
