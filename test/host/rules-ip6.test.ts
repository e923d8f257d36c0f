// IPv6 is masqueraded as IPv4 is, seen by packets:
//
//   pod fd00:5:1::2 ──veth── fd00:5:1::1 ┐      ┌ 2001:db8::1 ──veth── 2001:db8::9 outside
//                                        ├ node ┤
//                                        ┘      └ fd00:88::1 ──veth── fd00:88::2, fd00:5:2::2 far (a pod of another node)
import { execFileSync } from 'node:child_process';
import t, { type Test } from 'tap';
import { ensureForwarding } from '../../lib/host/forwarding.ts';
import { openHostRules, startTrafficRules } from '../../lib/host/rules.ts';
import { type Rtnetlink, withRtnetlink } from '../../lib/netlink/netlink.ts';
import { close, openRaw, rawReceive, rawSend, withNamespace } from '../../lib/sys/sys.ts';
import { recordingLogger } from '../daemon/fakes.ts';
import { makeSandbox, whyNot } from '../netlink/sandbox.ts';
import { udpPacket } from '../support/packets.ts';
import { openRuleTools, type RuleToolFolders } from './rule-tools.ts';

const noNamespaces = whyNot();
const found = noNamespaces === false ? openRuleTools() : noNamespaces;
const skip = typeof found === 'string' ? found : false;
const tools = found as RuleToolFolders;
t.teardown(() => {
  if (typeof found !== 'string') found.remove();
});

const NETWORK = 'fd00:5::/32';
const SUBNET = 'fd00:5:1::/64';
const POD = 'fd00:5:1::2';
const FAR = 'fd00:5:2::2';
const OUTSIDE = '2001:db8::9';
const NODE_OUTSIDE = '2001:db8::1';
const NODE_FAR = 'fd00:88::1';
const RAW = 255; // IPPROTO_RAW: the packet brings its own header
const UDP = 17;
const HEADERS = 8; // of what a raw socket of IPv6 gives: UDP's

function open6(t: Test) {
  const sandbox = makeSandbox();
  t.teardown(() => sandbox.remove());
  const [node, pod, outside, far] = ['node', 'pod', 'outside', 'far'].map(name => sandbox.namespace(name));
  const add = (netlink: Rtnetlink, name: string, cidr: string): void => {
    netlink.setLink(name, { up: true });
    netlink.addAddress(name, cidr, { nodad: true });
  };
  const link = (name: string, peer: string, here: string, there: string): void => {
    withRtnetlink(node, netlink => {
      netlink.createVeth({ name, peerName: 'eth0', peerNamespace: peer });
      add(netlink, name, here);
    });
    withRtnetlink(peer, netlink => add(netlink, 'eth0', there));
  };
  link('pod0', pod, 'fd00:5:1::1/64', `${POD}/64`);
  link('out0', outside, `${NODE_OUTSIDE}/64`, `${OUTSIDE}/64`);
  link('far0', far, `${NODE_FAR}/64`, 'fd00:88::2/64');
  withRtnetlink(pod, netlink => netlink.addRoute({ destination: 'default', gateway: 'fd00:5:1::1', family: 6 }));
  withRtnetlink(outside, netlink => netlink.addRoute({ destination: NETWORK, gateway: NODE_OUTSIDE }));
  withRtnetlink(far, netlink => {
    netlink.addAddress('lo', `${FAR}/128`, { nodad: true });
    netlink.addRoute({ destination: 'default', gateway: NODE_FAR, family: 6 });
  });
  withRtnetlink(node, netlink => netlink.addRoute({ destination: 'fd00:5:2::/64', gateway: 'fd00:88::2' }));
  ensureForwarding(node, { ip4: false, ip6: true });

  let flow = 0;
  /** A packet of a flow of its own; the source that arrives, or 'lost'. */
  const once = (from: string, source: string, to: string, destination: string, waitMs: number): string => {
    flow++;
    const payload = new TextEncoder().encode(`flow ${flow} ${'x'.repeat(flow % 7)}`);
    const packet = udpPacket({ source, destination, payload });
    const receiver = openRaw({ family: 6, protocol: UDP, namespace: to });
    const sender = openRaw({ family: 6, protocol: RAW, namespace: from });
    try {
      rawSend(sender, packet, destination);
      const buffer = new Uint8Array(2048);
      for (const deadline = performance.now() + waitMs; performance.now() < deadline; ) {
        const got = rawReceive(receiver, buffer, Math.max(1, Math.ceil(deadline - performance.now())));
        if (got === undefined) return 'lost';
        if (Buffer.from(buffer.subarray(HEADERS, got.bytes)).equals(Buffer.from(payload))) return got.address;
      }
      return 'lost';
    } finally {
      close(receiver);
      close(sender);
    }
  };
  /** The first packets may go while the neighbours still look for each other. NAT decides anew after a flush only. */
  const send = (from: string, source: string, to: string, destination: string): string => {
    for (let tries = 0; tries < 20; tries++) {
      const seen = once(from, source, to, destination, 500);
      if (seen !== 'lost') return seen;
    }
    return 'lost';
  };
  const nft = (...args: string[]): string =>
    withNamespace(node, () => execFileSync(tools.nft, args, { encoding: 'utf8' }));
  return { node, pod, outside, far, send, nft };
}

for (const set of ['nft', 'iptables', 'both'] as const) {
  t.test(`with ${set}: -ip-masq of a dual-stack node`, { skip }, async t => {
    const stage = open6(t);
    const { pod, outside, far, send } = stage;
    t.equal(send(far, FAR, pod, POD), FAR, 'the stage works, and nothing is masqueraded before');
    const { log, lines } = recordingLogger();
    const rules = await startTrafficRules({
      ranges: [
        { family: 4, network: '10.5.0.0/16', subnet: '10.5.1.0/24' },
        { family: 6, network: NETWORK, subnet: SUBNET },
      ],
      masquerade: true,
      forward: true,
      randomFully: true,
      resyncSeconds: 600,
      expectNftables: false,
      log,
      namespace: stage.node,
      path: tools.path(set),
    });
    t.match(rules.state(), { masquerade: set === 'iptables' ? 'iptables' : 'nftables' });
    t.equal(send(pod, POD, outside, OUTSIDE), NODE_OUTSIDE, "a pod to the outside has the node's address");
    t.equal(
      send(outside, OUTSIDE, far, FAR),
      NODE_FAR,
      "from outside to another node's pod: the answer comes back here",
    );
    t.equal(send(outside, OUTSIDE, pod, POD), OUTSIDE, 'from outside to a pod here: the pod sees who asks');
    await rules.stop({ remove: true });
    t.notMatch(stage.nft('list', 'ruleset'), /tulle/i, 'remove leaves nothing');
    t.same(
      lines.filter(line => line.level === 'warn'),
      [],
    );
  });

  if (set === 'both') continue;
  t.test(`with ${set}: one attachment of two families`, { skip }, async t => {
    const stage = open6(t);
    const { pod, outside, far, send } = stage;
    const { log } = recordingLogger();
    const rules = await openHostRules({ log, namespace: stage.node, path: tools.path(set), resyncSeconds: 600 });
    t.teardown(() => rules.close().catch(() => {}));
    const id = 'net/0123456789abcdef/eth0';
    await rules.ensureMasquerade({
      id,
      addresses: ['10.5.1.2', POD],
      exceptNetworks: ['10.5.0.0/16', NETWORK],
    });
    t.equal(send(pod, POD, outside, OUTSIDE), NODE_OUTSIDE);
    t.equal(send(pod, POD, far, FAR), POD, 'the pod network is left alone');
    await rules.removeMasquerade(id);
    t.notMatch(stage.nft('list', 'ruleset'), new RegExp(POD), 'no rule of either family is left');
    await rules.close();
    t.notMatch(stage.nft('list', 'ruleset'), /tulle/i);
  });
}
