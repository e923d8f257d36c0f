/** Two nodes for tests: two namespaces, a veth between them, an overlay in each, all inside this process. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { backendAttributes } from '../../lib/backend/backend.ts';
import { type Overlay, type OverlayOptions, startOverlay } from '../../lib/backend/overlay.ts';
import type { Lease } from '../../lib/lease/lease.ts';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { parseCidr6, type Subnet6 } from '../../lib/wire/cidr.ts';
import { cidr, NETWORK } from './node.ts';

export interface TwoNodes {
  /** Paths of the namespaces of node 1 and node 2. */
  namespaces: [string, string];
  /** What the overlays logged at info and above. */
  lines: string[];
  /** Starts node K's overlay in its namespace, without peers. */
  start(k: 1 | 2, options?: Partial<OverlayOptions>): Promise<Overlay>;
  remove(): void;
}

/** The device's address in node K, which answers pings. */
export const addressOf = (k: number): string => `10.42.${k}.0`;

export const NETWORK6 = { network6: cidr6('fd00:42::/48'), subnetLength6: 64 };
export const addressOf6 = (k: number): string => `fd00:42:0:${k}::`;
/** The underlay's addresses of IPv6. */
export const endpointOf6 = (k: number): string => `2001:db8:88::${k}`;

function cidr6(text: string): Subnet6 {
  const value = parseCidr6(text);
  if (value === undefined) throw new Error(`not a CIDR: ${text}`);
  return value;
}

/** Node K's lease in a dual-stack network; it says its IPv6 endpoint too. */
export function bothLeaseOf(k: number): Lease {
  const lease = leaseOf(k);
  const attributes = { ...lease.attributes, PublicIPv6: endpointOf6(k) };
  return { ...lease, subnet6: cidr6(`${addressOf6(k)}/64`), attributes };
}

export function leaseOf(k: number, type: 'tulle' | 'udp' = 'tulle', createRevision = 100 + k): Lease {
  const attributes = {
    PublicIP: `10.88.0.${k}`,
    PublicIPv6: null,
    ...backendAttributes({ type, port: 8285 }, `node${k}`),
  };
  return { subnet: cidr(`10.42.${k}.0/24`), attributes, expiresAtMs: null, createRevision, modRevision: 1 };
}

export function twoNodes(): TwoNodes {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-overlays-'));
  const namespaces: [string, string] = [join(folder, 'node1'), join(folder, 'node2')];
  for (const path of namespaces) makeNamespace(path);
  withRtnetlink(namespaces[0], netlink =>
    netlink.createVeth({ name: 'eth0', peerName: 'eth0', peerNamespace: namespaces[1] }),
  );
  namespaces.forEach((path, i) => {
    withRtnetlink(path, netlink => {
      netlink.addAddress('eth0', `10.88.0.${i + 1}/24`);
      netlink.addAddress('eth0', `${endpointOf6(i + 1)}/64`, { nodad: true });
      netlink.setLink('eth0', { up: true });
    });
  });
  const lines: string[] = [];
  const say = (_: object, message: string): void => void lines.push(message);
  return {
    namespaces,
    lines,
    start(k, options = {}) {
      const backend = options.backend ?? { type: 'tulle', port: 8285 };
      // All descriptors are opened before startOverlay first waits, so they belong to the namespace.
      let overlay: Promise<Overlay> | undefined;
      withNamespace(namespaces[k - 1], () => {
        overlay = startOverlay({
          backend,
          ...NETWORK,
          own: leaseOf(k, backend.type),
          address: `10.88.0.${k}`,
          underlayMtu: 1500,
          transport: 'offload',
          deviceName: 'tulle%d',
          log: { ...silentLogger, info: say, warn: say, error: say },
          ...options,
        });
      });
      return overlay!;
    },
    remove() {
      for (const path of namespaces) removeNamespace(path);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
