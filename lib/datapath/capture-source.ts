/** The main thread's face of the ring: switches capturing on and off, and takes what was captured. */

import type { Subnet4 } from '../wire/cidr.ts';
import { subnetIndex } from '../wire/cidr.ts';
import {
  type CaptureRecord,
  RING_ALL_PEERS,
  RING_DROPS_ONLY,
  RING_GENERATION,
  RING_SNAPLEN,
  type Ring,
  RingReader,
} from './capture-ring.ts';

export interface CaptureSettings {
  /** Bytes of a packet that are kept; at least 128 are. */
  snaplen: number;
  /** Only the packets of the peers with these subnets, and those that belong to no peer; undefined: of all. */
  peers?: readonly Subnet4[] | undefined;
  /** Only what is dropped: the edges are left alone. */
  dropsOnly?: boolean;
}

export interface CaptureSource {
  /** Captures with these settings from now on; undefined: no more. */
  set(settings: CaptureSettings | undefined): void;
  /** Gives up to `most` records to `take`, oldest first; each is borrowed until it returns. Returns how many there were. */
  drain(take: (record: CaptureRecord) => void, most: number): number;
  /** How many records did not fit so far; what is drained after this was asked says at least as many. */
  lost(): number;
}

export class RingSource implements CaptureSource {
  readonly #ring: Ring;
  readonly #reader: RingReader;
  readonly #network: { network: Subnet4; subnetLength: number };
  readonly #wake: () => void;
  #generation = 0;

  /** `wake`: a worker that sleeps looks at the settings only when it wakes up. */
  constructor(ring: Ring, network: { network: Subnet4; subnetLength: number }, wake: () => void) {
    this.#ring = ring;
    this.#reader = new RingReader(ring);
    this.#network = network;
    this.#wake = wake;
  }

  set(settings: CaptureSettings | undefined): void {
    const { control, wanted } = this.#ring;
    if (settings !== undefined) {
      if (control[RING_GENERATION] === 0) this.#reader.clear();
      control[RING_SNAPLEN] = Math.min(settings.snaplen, 0x7fff_ffff);
      control[RING_DROPS_ONLY] = settings.dropsOnly === true ? 1 : 0;
      control[RING_ALL_PEERS] = settings.peers === undefined ? 1 : 0;
      wanted.fill(0);
      for (const { address } of settings.peers ?? []) {
        const index = subnetIndex(address, this.#network.network, this.#network.subnetLength);
        if (index >= 0) wanted[index] = 1;
      }
    }
    this.#generation = (this.#generation % 0x3fff_ffff) + 1;
    Atomics.store(control, RING_GENERATION, settings === undefined ? 0 : this.#generation);
    this.#wake();
  }

  drain(take: (record: CaptureRecord) => void, most: number): number {
    return this.#reader.drain(take, most);
  }

  lost(): number {
    return this.#reader.lost;
  }
}
