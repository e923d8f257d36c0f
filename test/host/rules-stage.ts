// A node between its pod, another node's pod and the outside, and packets between them:
//
//   pod 10.5.1.2 ──veth── 10.5.1.1 ┐      ┌ 192.0.2.1 ──veth── 192.0.2.9 outside
//                                  ├ node ┤
//                                  ┘      └ 10.88.0.1 ──veth── 10.88.0.2, 10.5.2.2 far (a pod of another node)
import { execFileSync } from 'node:child_process';
import { ensureForwarding } from '../../lib/host/forwarding.ts';
import { type Rtnetlink, withRtnetlink } from '../../lib/netlink/netlink.ts';
import { close, openRaw, rawReceive, rawSend, withNamespace } from '../../lib/sys/sys.ts';
import { formatAddress4 } from '../../lib/wire/ip4.ts';
import { makeSandbox, type Sandbox } from '../netlink/sandbox.ts';
import { udpPacket } from '../support/packets.ts';

const RAW = 255; // IPPROTO_RAW: the packet brings its own header
const UDP = 17;

export const POD = '10.5.1.2';
export const FAR = '10.5.2.2';
export const OUTSIDE = '192.0.2.9';
export const NODE_OUTSIDE = '192.0.2.1';
export const NODE_FAR = '10.88.0.1';

export interface Stage {
  node: string;
  pod: string;
  outside: string;
  far: string;
  /**
   * Sends a UDP packet of a flow of its own from a namespace to an address and waits for it in another namespace.
   * The source that arrives; 'lost' after `waitMs`.
   */
  send(from: string, source: string, to: string, destination: string, waitMs?: number): string;
  /** A program inside the node. */
  run(file: string, ...args: string[]): string;
  remove(): void;
}

const ARRIVES_MS = 5000;

export function openStage(sandbox: Sandbox = makeSandbox()): Stage {
  const [node, pod, outside, far] = ['node', 'pod', 'outside', 'far'].map(name => sandbox.namespace(name));
  const link = (name: string, peer: string, here: string, there: string): void => {
    withRtnetlink(node, netlink => {
      netlink.createVeth({ name, peerName: 'eth0', peerNamespace: peer });
      netlink.addAddress(name, here);
      netlink.setLink(name, { up: true });
    });
    inside(peer, netlink => {
      netlink.addAddress('eth0', there);
      netlink.setLink('eth0', { up: true });
    });
  };
  const inside = (path: string, action: (netlink: Rtnetlink) => void): void => withRtnetlink(path, action);
  link('pod0', pod, '10.5.1.1/24', `${POD}/24`);
  link('out0', outside, `${NODE_OUTSIDE}/24`, `${OUTSIDE}/24`);
  link('far0', far, `${NODE_FAR}/24`, '10.88.0.2/24');
  inside(pod, netlink => netlink.addRoute({ destination: 'default', gateway: '10.5.1.1' }));
  inside(outside, netlink => netlink.addRoute({ destination: '10.5.0.0/16', gateway: NODE_OUTSIDE }));
  inside(far, netlink => {
    netlink.addAddress('lo', `${FAR}/32`);
    netlink.addRoute({ destination: 'default', gateway: NODE_FAR });
  });
  inside(node, netlink => netlink.addRoute({ destination: '10.5.2.0/24', gateway: '10.88.0.2' }));
  ensureForwarding(node);

  let flow = 0;
  return {
    node,
    pod,
    outside,
    far,
    send(from, source, to, destination, waitMs = ARRIVES_MS) {
      flow++;
      const payload = new TextEncoder().encode(`flow ${flow}`);
      const packet = udpPacket({ source, destination, payload });
      // NAT decides once for a flow, so each packet has a port of its own. A checksum of 0 is none (RFC 768).
      packet[20] = 0x40 + (flow >>> 8);
      packet[21] = flow;
      packet[26] = 0;
      packet[27] = 0;
      const receiver = openRaw({ family: 4, protocol: UDP, namespace: to });
      const sender = openRaw({ family: 4, protocol: RAW, namespace: from });
      try {
        rawSend(sender, packet, destination);
        const buffer = new Uint8Array(2048);
        for (const deadline = performance.now() + waitMs; performance.now() < deadline; ) {
          const got = rawReceive(receiver, buffer, Math.max(1, Math.ceil(deadline - performance.now())));
          if (got === undefined) return 'lost';
          if (Buffer.from(buffer.subarray(28, got.bytes)).equals(Buffer.from(payload))) {
            return formatAddress4(new DataView(buffer.buffer).getUint32(12));
          }
        }
        return 'lost';
      } finally {
        close(receiver);
        close(sender);
      }
    },
    run: (file, ...args) => withNamespace(node, () => execFileSync(file, args, { encoding: 'utf8' })),
    remove: () => sandbox.remove(),
  };
}
