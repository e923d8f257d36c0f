/**
 * What the kernel can do, tried for real in a network namespace that is made for it and goes with it: nothing of the
 * machine's own network is touched.
 */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findRuleTools } from '../../host/rules/tools.ts';
import { makeNamespace } from '../../netlink/namespace.ts';
import { withRtnetlink } from '../../netlink/netlink.ts';
import * as sys from '../../sys/sys.ts';
import { codeOf, messageOf } from '../../util/errors.ts';
import { silentLogger } from '../../util/log.ts';
import type { MachineFacts, Trial } from './facts.ts';

export type Trials = Pick<
  MachineFacts,
  'namespace' | 'tun' | 'offloads' | 'udpGro' | 'udpTrain' | 'veth' | 'bridge' | 'nftables' | 'iptables'
>;

const UNTRIED: Omit<Trials, 'namespace'> = {
  tun: undefined,
  offloads: undefined,
  udpGro: undefined,
  udpTrain: undefined,
  veth: undefined,
  bridge: undefined,
  nftables: false,
  iptables: false,
};

/** Leaves nothing behind, however it ends. */
export async function tryKernel(): Promise<Trials> {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-doctor-'));
  const path = join(folder, 'ns');
  try {
    const namespace = attempt(() => makeNamespace(path));
    // Opening alone makes no device.
    if (!namespace.ok) return { namespace, ...UNTRIED, tun: attempt(() => closeSync(openSync('/dev/net/tun', 'r+'))) };
    try {
      return {
        namespace,
        ...sys.withNamespace(path, tryDevice),
        udpGro: sys.withNamespace(path, tryGro),
        udpTrain: sys.withNamespace(path, tryTrain),
        veth: attempt(() => withRtnetlink(path, netlink => netlink.createVeth({ name: 'a', peerName: 'b' }))),
        bridge: attempt(() => withRtnetlink(path, netlink => netlink.createBridge({ name: 'c' }))),
        ...(await tryRules(path)),
      };
    } finally {
      sys.removeNamespace(path);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function attempt(action: () => void): Trial {
  try {
    action();
    return { ok: true };
  } catch (error) {
    return { ok: false, code: codeOf(error) ?? 'EIO', message: messageOf(error) };
  }
}

/** A device that goes with its handle, in the namespace of this thread. */
function tryDevice(): Pick<Trials, 'tun' | 'offloads'> {
  let handle: number | undefined;
  const tun = attempt(() => {
    ({ handle } = sys.openTun({ name: 'doctor%d', vnetHeader: true, offloads: 0 }));
  });
  if (handle === undefined) return { tun, offloads: undefined };
  const device = handle;
  const accepts = (bits: number): boolean => attempt(() => sys.setTunOffloads(device, bits)).ok;
  try {
    const offloads = {
      checksum: accepts(sys.TUN_F_CSUM),
      tso: accepts(sys.TUN_F_CSUM | sys.TUN_F_TSO4 | sys.TUN_F_TSO6 | sys.TUN_F_TSO_ECN),
      uso: accepts(sys.TUN_F_CSUM | sys.TUN_F_USO4 | sys.TUN_F_USO6),
    };
    return { tun, offloads };
  } finally {
    sys.close(device);
  }
}

const LOOPBACK = '127.0.0.1';

function tryGro(): Trial {
  return attempt(() => sys.close(sys.openUdp({ address: LOOPBACK, port: 0, gro: true }).handle));
}

/** Sends four datagrams as one train to a socket of our own. */
function tryTrain(): Trial {
  const [address, message, iov, data, segment] = [0, 64, 128, 256, 100];
  const bytes = new Uint8Array(1024);
  const words = new Int32Array(bytes.buffer);
  return attempt(() => {
    const receiver = sys.openUdp({ address: LOOPBACK, port: 0 });
    try {
      const sender = sys.openUdp({ address: LOOPBACK, port: 0 });
      try {
        sys.encodeAddress(bytes, address, LOOPBACK, receiver.port);
        words.set([0, 1, segment, address, -1], message / 4);
        words.set([data, 4 * segment], iov / 4);
        const arena = sys.registerArena(bytes);
        sys.sendUdp(sender.handle, arena, message, 1, iov);
        sys.unregisterArena(arena);
        const status = words[message / 4 + 4];
        if (status !== 0) throw new Error(sys.errnoName(status));
      } finally {
        sys.close(sender.handle);
      }
    } finally {
      sys.close(receiver.handle);
    }
  });
}

async function tryRules(namespace: string): Promise<Pick<Trials, 'nftables' | 'iptables'>> {
  const { nft, iptables, nfTables } = await findRuleTools({ family: 4, log: silentLogger, namespace });
  nfTables?.close();
  return { nftables: nft !== undefined, iptables: iptables.length > 0 };
}
