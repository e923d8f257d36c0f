/**
 * A capture as a pcapng stream. Four interfaces, all of one link type and snaplen, because libpcap reads no other file: the TUN
 * and the underlay, and beside each what was dropped there, so that nobody takes a drop for a second packet.
 */
import {
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  enhancedPacket,
  interfaceDescription,
  interfaceStatistics,
  LINKTYPE_RAW_DLT,
  sectionHeader,
} from '../../wire/pcapng.ts';
import { type CapturedPacket, type CapturePlace, commentsOf, endpointText, type LocalEnd } from './packet.ts';

export interface FileOptions {
  /** The node's name, which the interfaces' names begin with. */
  node: string | undefined;
  device: string;
  local: LocalEnd;
  /** As in the file: outer headers count. 0: no limit. */
  snaplen: number;
  /** What was asked for, for the file's comment. */
  comment: string;
}

const TUN = 0;
const UNDERLAY = 1;
const DROPS = 2;
const INTERFACES = 4;

/** As tcpdump sees the device: what the kernel gives to tulled leaves it there. */
const DIRECTIONS: Readonly<Record<CapturePlace, number>> = {
  'tun-read': DIRECTION_OUTBOUND,
  'udp-send': DIRECTION_OUTBOUND,
  'udp-receive': DIRECTION_INBOUND,
  'tun-write': DIRECTION_INBOUND,
};

export class CaptureFile {
  readonly #options: FileOptions;
  /** Of each interface: the packets that were seen, and those of them that are in the file. */
  readonly #seen = new Array<number>(INTERFACES).fill(0);
  readonly #kept = new Array<number>(INTERFACES).fill(0);
  readonly #start: bigint;
  #last: bigint;

  /** `now`: Unix time in nanoseconds. */
  constructor(options: FileOptions, now: bigint) {
    this.#options = options;
    this.#start = now;
    this.#last = now;
  }

  /** What a file begins with. */
  header(): Uint8Array {
    const { node, device, local, snaplen, comment } = this.#options;
    const prefix = node === undefined ? '' : `${node}:`;
    const endpoint = endpointText(local.address, local.port);
    const one = (name: string, description: string): Uint8Array =>
      interfaceDescription({ linkType: LINKTYPE_RAW_DLT, snaplen, name: `${prefix}${name}`, description });
    return Buffer.concat([
      sectionHeader({ os: 'Linux', application: 'tulle capture', comment }),
      one(device, "the pods' packets at the TUN device"),
      one('underlay', `datagrams of ${endpoint}; their IP and UDP headers are put together again`),
      one(`${device} drops`, "pods' packets that went no further"),
      one('underlay drops', 'datagrams that went no further'),
    ]);
  }

  /**
   * Hands the packet's block to `put`, which says whether there was room for it. `lost`: packets that this capture lost since
   * the last one that went in.
   */
  packet(packet: CapturedPacket, lost: number, put: (block: Uint8Array) => boolean): boolean {
    const isInner = packet.place === 'tun-read' || packet.place === 'tun-write';
    const index = (isInner ? TUN : UNDERLAY) + (packet.drop === undefined ? 0 : DROPS);
    this.#seen[index]++;
    this.#last = packet.time;
    const block = enhancedPacket({
      interface: index,
      time: packet.time,
      data: packet.bytes,
      length: packet.length,
      direction: DIRECTIONS[packet.place],
      comments: commentsOf(packet),
      drops: lost,
    });
    if (!put(block)) return false;
    this.#kept[index]++;
    return true;
  }

  /** What a file ends with. `lost`: all packets that this capture lost; of which interface is not known. */
  end(lost: number): Uint8Array {
    const times = { time: this.#last, start: this.#start, end: this.#last };
    return Buffer.concat(
      this.#seen.map((received, index) =>
        interfaceStatistics({
          ...{ interface: index, received, delivered: this.#kept[index], ...times },
          ...(index === TUN && { lost, comment: 'lost: by the capture, on all interfaces' }),
        }),
      ),
    );
  }
}
