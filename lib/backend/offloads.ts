/**
 * The offloads that a node may use, each of which can be left out: to teach what it buys, or on a kernel where it is broken.
 * The transports are sets of them: `offload` uses all, `batch` and `dgram` none.
 */
import type { Offload, Transport } from '../datapath/loop.ts';
import { TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6 } from '../sys/sys.ts';
import { TulleError } from '../util/errors.ts';

/** Name and meaning; the help text lists them. */
export const OFFLOADS = {
  checksum: 'take packets whose TCP or UDP checksum is not finished',
  tso: 'take TCP super-packets from the kernel (needs checksum)',
  uso: 'take UDP super-packets from the kernel (needs checksum; Linux 6.2)',
  trains: 'send equal datagrams as one UDP_SEGMENT train, unequal small ones as a bundle',
  gro: 'receive trains whole (UDP_GRO)',
  coalescing: 'join segments again and write them as one super-packet',
} as const;

export type OffloadName = keyof typeof OFFLOADS;
export type Offloads = Record<OffloadName, boolean>;

const NAMES = Object.keys(OFFLOADS) as OffloadName[];

/** What a transport uses, without those that are named in `without`. Code 'bad-flag' for a name that is none. */
export function offloadsOf(transport: Transport, without: readonly string[] = []): Offloads {
  const unknown = without.find(name => !Object.hasOwn(OFFLOADS, name));
  if (unknown !== undefined) {
    throw new TulleError('bad-flag', `"${unknown}" is no offload: use ${NAMES.join(', ')}`);
  }
  const used = (name: OffloadName): boolean => transport === 'offload' && !without.includes(name);
  const checksum = used('checksum');
  return {
    checksum,
    tso: checksum && used('tso'),
    uso: checksum && used('uso'),
    trains: used('trains'),
    gro: used('gro'),
    coalescing: used('coalescing'),
  };
}

/**
 * What to ask the TUN for (linux/if_tun.h), from all that is wanted to the least: a kernel refuses a set whole. USO needs
 * both of its bits at once (drivers/net/tun.c: set_offload).
 */
export function tunOffloadLadder({ checksum, tso, uso }: Offloads): number[] {
  if (!checksum) return [];
  const tsoBits = tso ? TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0;
  const ladder = [TUN_F_CSUM | tsoBits | (uso ? TUN_F_USO4 | TUN_F_USO6 : 0), TUN_F_CSUM | tsoBits, TUN_F_CSUM];
  return ladder.filter((bits, i) => i === 0 || bits !== ladder[i - 1]);
}

/**
 * Whether to give the TUN coalesced UDP. A kernel that offers no USO does not take it either: both came with Linux 6.2
 * (include/linux/virtio_net.h: VIRTIO_NET_HDR_GSO_UDP_L4). Where USO was not asked for, the first such write will tell.
 */
export function takesUdpRuns({ coalescing, uso }: Offloads, tunBits: number): boolean {
  return coalescing && (!uso || (tunBits & TUN_F_USO4) !== 0);
}

/** Whether an offload is in use; `why` is for people, `reason` for programs. */
export interface OffloadState {
  on: boolean;
  reason: 'in-use' | 'transport' | 'without-offload' | 'needs-checksum' | 'kernel-lacks' | 'kernel-refused';
  why: string;
}

/** What a UDP socket can do. */
export type SocketOffloads = Pick<Offloads, 'trains' | 'gro'>;

export interface OffloadFacts {
  transport: Transport;
  without: readonly string[];
  /** The TUN_F_ bits that the kernel accepted. */
  tunBits: number;
  /** What the kernel's UDP sockets offer. */
  socket: SocketOffloads;
  /** What has not been refused since; undefined while no data path runs. */
  alive: Record<Offload, boolean> | undefined;
}

const TUN_BITS: Partial<Record<OffloadName, number>> = {
  checksum: TUN_F_CSUM,
  tso: TUN_F_TSO4 | TUN_F_TSO6,
  uso: TUN_F_USO4 | TUN_F_USO6,
};

/** Every offload with the reason why it is on or off. */
export function offloadStates(facts: OffloadFacts): Record<OffloadName, OffloadState> {
  const states = NAMES.map(name => [name, stateOf(name, facts)] as const);
  return Object.fromEntries(states) as Record<OffloadName, OffloadState>;
}

function stateOf(name: OffloadName, { transport, without, tunBits, socket, alive }: OffloadFacts): OffloadState {
  const off = (reason: OffloadState['reason'], why: string): OffloadState => ({ on: false, reason, why });
  if (transport !== 'offload') return off('transport', `--transport=${transport} does without offloads`);
  if (without.includes(name)) return off('without-offload', `--without-offload=${name}`);
  const wantsChecksum = name === 'tso' || name === 'uso';
  if (wantsChecksum && without.includes('checksum')) return off('needs-checksum', 'it needs checksum, which is off');
  const bits = TUN_BITS[name] ?? 0;
  if ((tunBits & bits) !== bits) return off('kernel-lacks', "this kernel's TUN device does not offer it");
  if ((name === 'gro' || name === 'trains') && !socket[name])
    return off('kernel-lacks', "this kernel's UDP sockets do not offer it");
  const refused = (name === 'trains' || name === 'coalescing') && alive?.[name] === false;
  if (refused) return off('kernel-refused', 'the kernel refused it once, and it is off since then');
  if (name === 'coalescing' && alive?.['udp-coalescing'] === false)
    return { on: true, reason: 'in-use', why: 'in use for TCP; this kernel does not take UDP super-packets' };
  return { on: true, reason: 'in-use', why: 'in use' };
}
