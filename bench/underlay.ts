/**
 * Two kinds of underlay from one veth pair. A plain veth hands a super-packet of 64 KB to the other end as it is, which no
 * network card does. "nic" makes it behave like one: the kernel really segments what leaves, and what arrives is joined
 * again by GRO, as a card's driver does it.
 */
import { spawnSync } from 'node:child_process';
import * as sys from '../lib/sys/sys.ts';
import { TulleError } from '../lib/util/errors.ts';
import type { Found } from './programs.ts';
import type { Stage } from './stage.ts';

export const UNDERLAYS = ['veth', 'nic'] as const;
export type Underlay = (typeof UNDERLAYS)[number];

/** ethtool -K, on both ends. */
const FEATURES: Readonly<Record<Underlay, readonly string[]>> = {
  veth: ['tso', 'on', 'tx-udp-segmentation', 'on', 'gro', 'off'],
  nic: ['tso', 'off', 'tx-udp-segmentation', 'off', 'gro', 'on'],
};

export function setUnderlay(stage: Stage, underlay: Underlay, ethtool: Found): void {
  for (const node of stage.nodes) {
    const { status, stderr } = sys.withNamespace(node.namespaceFile, () =>
      spawnSync(ethtool.path, ['-K', 'eth0', ...FEATURES[underlay]], {
        encoding: 'utf8',
        env: { ...process.env, ...ethtool.environment },
        timeout: 5000,
      }),
    );
    if (status !== 0) throw new TulleError('underlay', `ethtool -K eth0: ${stderr?.trim() || 'cannot be started'}`);
  }
}
