/**
 * A journey told in steps, from pod to pod: where the packet is, its bytes there, what was added, removed or changed, why,
 * and the file that did it. What was captured is shown as it was; what nobody captured is worked out, and says so. Pure.
 */
import { DROP_REASONS } from '../../datapath/counters.ts';
import { KIND_BUNDLE, KIND_SEGMENT } from '../../wire/tulle.ts';
import { type Check, receiverChecks, type Who } from './checks.ts';
import { type Bytes, behindVnet, cut, hopsLater, hopsLeft, padded } from './derive.ts';
import { type Difference, differenceOf, NO_DIFFERENCE } from './difference.ts';
import type { Journey, Sight } from './journey.ts';
import { type Beginning, type Layer, layersOf } from './layers.ts';
import { lookupFacts, widthFacts } from './lookup.ts';
import type { NodeView } from './model.ts';
import { early, headerOf, lengthOf, matching } from './sight.ts';

export type Side = 'near' | 'wire' | 'far';
export type Station = 'pod' | 'bridge' | 'tun' | 'tulled' | 'eth0' | 'wire';
export type Fact = readonly [label: string, value: string];

export interface Step {
  id: string;
  title: string;
  side: Side;
  station: Station;
  /** The node's name; empty where it is not known, and between the nodes. */
  node: string;
  captured: boolean;
  text: string;
  facts: Fact[];
  bytes: Uint8Array;
  /** From here on the capture had no bytes. */
  capturedBytes: number;
  layers: Layer[];
  /** Where the pod's packet begins. */
  inner: number;
  difference: Difference;
  checks?: Check[];
  /** File and what of it. "kernel" stands for Linux. */
  code: readonly (readonly [file: string, what: string])[];
  drop?: { reason: string; sentence: string };
}

/** What becomes a step once its bytes are decoded and compared with those of the step before. */
interface Draft extends Omit<Step, 'bytes' | 'capturedBytes' | 'layers' | 'difference' | 'inner'> {
  shown: Bytes;
  begins: Beginning;
  inner?: number;
}

export const dropSentence = (reason: string): string =>
  (DROP_REASONS as Readonly<Record<string, string>>)[reason] ?? reason;

/** The steps of a journey, by the datagram of number `which` where several carried it. Never empty. */
export function stepsOf(journey: Journey, who?: Who, which = 0): Step[] {
  const drafts = new Teller(journey, who, which).tell();
  const steps: Step[] = [];
  for (const { shown, begins, inner, ...draft } of drafts) {
    const layers = layersOf(shown.bytes, begins, shown.captured);
    const at = inner ?? layers.find(layer => layer.kind === 'inner-ip')?.offset ?? 0;
    const before = steps.at(-1);
    const difference =
      before === undefined ? NO_DIFFERENCE : differenceOf(before, { bytes: shown.bytes, layers, inner: at });
    steps.push({ ...draft, bytes: shown.bytes, capturedBytes: shown.captured, layers, inner: at, difference });
  }
  return steps;
}

class Teller {
  readonly #journey: Journey;
  readonly #who: Who | undefined;
  readonly #sent: Sight | undefined;
  readonly #received: Sight | undefined;
  readonly #near: NodeView | undefined;
  readonly #far: NodeView | undefined;
  readonly #nearName: string;
  readonly #farName: string;
  readonly #drafts: Draft[] = [];

  constructor(journey: Journey, who: Who | undefined, which: number) {
    this.#journey = journey;
    this.#who = who;
    this.#sent = journey.sent[Math.min(which, journey.sent.length - 1)];
    this.#received = this.#sent === undefined ? journey.received[which] : matching(journey.received, this.#sent);
    this.#nearName = journey.read?.record.node ?? this.#sent?.record.node ?? '';
    this.#farName = this.#received?.record.node ?? journey.written[0]?.record.node ?? '';
    this.#near = who?.nodes.find(node => node.name === this.#nearName);
    this.#far = who?.nodes.find(node => node.name === this.#farName);
  }

  tell(): Draft[] {
    const datagram = this.#sent ?? this.#received;
    if (this.#journey.read !== undefined || datagram !== undefined) this.#leave(datagram);
    if (datagram === undefined) {
      if (this.#journey.written.length > 0) this.#deliver(undefined);
      return this.#drafts;
    }
    if (this.#sent?.record.drop === undefined) this.#cross(datagram);
    return this.#drafts;
  }

  /** Pod, bridge, TUN, lookup: up to the datagram, or to the drop. */
  #leave(datagram: Sight | undefined): void {
    const { read } = this.#journey;
    const tulle = datagram === undefined ? undefined : headerOf(datagram);
    const segment = tulle?.kind === KIND_SEGMENT;
    const packet =
      read === undefined ? early(datagram!, segment) : cut(padded(read.record.bytes, read.record.length), 0);
    const captured = read !== undefined;
    const near = { side: 'near', node: this.#nearName } as const;
    this.#tell({
      ...near,
      id: 'pod',
      title: 'The pod sends',
      station: 'pod',
      captured: false,
      text: `A program in the pod writes; the pod’s kernel puts IP in front and sends it out of its veth. It knows nothing of an overlay: this is an ordinary IP packet with a TTL of ${hopsLeft(packet.bytes) + 1}.`,
      facts: [
        ['from', this.#journey.source],
        ['to', this.#journey.destination],
        ['length', `${packet.bytes.length} bytes`],
      ],
      shown: hopsLater(packet, -1),
      begins: 'inner',
      code: [['lib/cni/attach.ts', 'made the veth pair']],
    });
    this.#tell({
      ...near,
      id: 'bridge',
      title: 'Bridge and route',
      station: 'bridge',
      captured: false,
      text: `The other end of the veth hangs on the bridge cni0. The node’s kernel routes the packet to tulle0, because the whole pod network lies behind that device, and takes one off the TTL: ${hopsLeft(packet.bytes)} now.`,
      facts: [],
      shown: packet,
      begins: 'inner',
      code: [
        ['kernel', 'ip_forward'],
        ['lib/backend/device.ts', 'set the address and the route of tulle0'],
      ],
    });
    this.#tell({
      ...near,
      id: 'read',
      title: 'Read from the TUN',
      station: 'tun',
      captured,
      text: segment
        ? 'tulled reads it from the TUN device. It is a super-packet: TCP handed down up to 64 KB with one header, and nobody has cut it yet. The 10 bytes in front, the vnet header, say so.'
        : 'tulled reads it from the TUN device, with up to 15 others in one turn. The 10 bytes in front, the vnet header, say what the kernel left undone: here the checksum, when it is partial.',
      facts: [],
      shown: behindVnet(packet, tulle?.partial ?? false, segment ? tulle.segmentSize : 0),
      begins: 'vnet',
      code: [
        ['lib/sys/tun.c', 'readTun'],
        ['lib/wire/vnet.ts', 'the header’s fields'],
      ],
    });
    const reason =
      read?.record.drop ?? this.#sent?.record.drop ?? (datagram === undefined ? this.#journey.drop : undefined);
    const stops = reason?.startsWith('egress-') === true && this.#sent === undefined;
    this.#tell({
      ...near,
      id: 'lookup',
      title: stops ? 'Looked up, and stopped' : 'Whose lease is it?',
      station: 'tulled',
      captured: false,
      text: stops
        ? 'tulled checks the IP header and looks for the lease that its destination lies in. This packet goes no further.'
        : 'tulled checks the IP header and looks for the lease that the destination lies in. All subnets have one length, so the subnet’s number is the index into an array: one load, no search. The TTL goes down once more: the whole overlay is one hop.',
      facts: lookupFacts(this.#journey.destination, this.#who),
      shown: stops ? packet : hopsLater(packet, 1),
      begins: 'inner',
      code: [
        ['lib/datapath/egress.ts', 'Egress.take'],
        ['lib/datapath/peers.ts', 'the route table'],
      ],
      ...(stops && { drop: { reason, sentence: dropSentence(reason) } }),
    });
  }

  /** Header, datagram, underlay, checks. */
  #cross(datagram: Sight): void {
    const { record, inner } = datagram;
    const outer = padded(record.bytes, record.length);
    const tulle = headerOf(datagram);
    const begin = tulle === undefined ? inner.offset : inner.header;
    const near = { side: 'near', node: this.#nearName } as const;
    const total = this.#journey.sent.length;
    if (tulle !== undefined) {
      const text: Readonly<Record<number, string>> = {
        [KIND_SEGMENT]: `The super-packet is cut into segments of ${tulle.segmentSize} bytes. Each gets a tulle header of its own in front of the same IP and TCP header: it could be delivered without any other. This is segment ${tulle.index}.`,
        [KIND_BUNDLE]: `Small packets for one peer that were read in the same turn share a datagram: ${tulle.index} of them here, each behind its length. Nothing waited for company.`,
      };
      this.#tell({
        ...near,
        id: 'header',
        title: tulle.kind === KIND_SEGMENT ? 'Cut, and a header each' : 'A header in front',
        station: 'tulled',
        captured: false,
        text:
          text[tulle.kind] ??
          'Twelve bytes go in front, in the place of the vnet header, so nothing is copied. They carry the sender’s lease key, by which the receiver tells that the sender still holds its lease.',
        facts: [
          [
            'lease key',
            `${tulle.key}${this.#near === undefined ? '' : `: ${this.#near.name} holds ${this.#near.subnet}`}`,
          ],
        ],
        shown: cut(outer, begin),
        begins: 'datagram',
        inner: inner.offset - begin,
        code: [
          ['lib/wire/tulle.ts', 'emitTulle'],
          ['lib/datapath/egress.ts', tulle.kind === KIND_SEGMENT ? '#tulleSegment' : '#single'],
        ],
      });
    }
    const train =
      total > 1
        ? ` With the other segments it leaves as a train: up to 64 datagrams in one system call (${total} were seen).`
        : '';
    this.#tell({
      ...near,
      id: 'send',
      title: 'Out as a datagram',
      station: 'eth0',
      captured: this.#sent !== undefined,
      text: `The kernel puts UDP and IP in front and sends it to the peer.${train}`,
      facts: [...widthFacts(outer.bytes, begin, this.#near?.underlayMtu), ...commentFact(this.#sent)],
      shown: outer,
      begins: 'outer',
      inner: inner.offset,
      code: [
        ['lib/datapath/message-table.ts', 'trains'],
        ['lib/sys/udp_batch.c', 'sendUdp'],
      ],
    });
    this.#tell({
      id: 'underlay',
      title: 'Across the underlay',
      side: 'wire',
      station: 'wire',
      node: '',
      captured: this.#received !== undefined && this.#sent !== undefined,
      text: 'Switches and routers see a UDP datagram between two nodes and nothing else. The outer UDP checksum guards every byte behind it.',
      facts: [],
      shown: outer,
      begins: 'outer',
      inner: inner.offset,
      code: [['kernel', 'and whatever stands between the nodes']],
    });
    if (
      this.#received === undefined &&
      this.#journey.written.length === 0 &&
      this.#sent !== undefined &&
      this.#far === undefined
    )
      return;
    this.#arrive(datagram);
  }

  #arrive(datagram: Sight): void {
    const at = this.#received ?? datagram;
    const outer = padded(at.record.bytes, at.record.length);
    const checks =
      outer.captured === outer.bytes.length || headerOf(at) !== undefined
        ? receiverChecks(outer.bytes, this.#farName, this.#who)
        : [];
    const reason = this.#received?.record.drop ?? checks.find(check => check.verdict === 'refused')?.reason;
    this.#tell({
      id: 'checks',
      title: reason === undefined ? 'Who sent this?' : 'Refused',
      side: 'far',
      station: 'tulled',
      node: this.#farName,
      captured: this.#received !== undefined,
      text: 'Nothing inside is looked at before the sender is known: first the outer address, then the lease key, and only then the packet, which must come from the sender’s own subnet.',
      facts: commentFact(this.#received),
      shown: outer,
      begins: 'outer',
      inner: at.inner.offset,
      checks,
      code: [
        ['lib/sys/udp_batch.c', 'receiveUdp'],
        ['lib/datapath/ingress.ts', 'Ingress.take'],
      ],
      ...(reason !== undefined && { drop: { reason, sentence: dropSentence(reason) } }),
    });
    if (reason === undefined) this.#deliver(at);
  }

  /** TUN, bridge, pod. */
  #deliver(datagram: Sight | undefined): void {
    const [written] = this.#journey.written;
    const tulle = datagram === undefined ? undefined : headerOf(datagram);
    const packet =
      written === undefined
        ? cut(padded(datagram!.record.bytes, datagram!.record.length), datagram!.inner.offset, lengthOf(datagram!))
        : cut(padded(written.record.bytes, written.record.length), 0);
    const far = { side: 'far', node: this.#farName } as const;
    const joined = tulle?.kind === KIND_SEGMENT && written !== undefined;
    const size = joined && written.record.length > tulle.segmentSize + 120 ? tulle.segmentSize : 0;
    this.#tell({
      ...far,
      id: 'write',
      title: joined ? 'Joined again, and into the TUN' : 'Into the TUN',
      station: 'tun',
      captured: written !== undefined,
      text: joined
        ? 'Segments that came together without a gap are one packet again: one write, with the first segment’s headers rewritten for all of them. The vnet header in front is derived from what was parsed, never copied from the wire.'
        : 'The headers in front are gone. A vnet header is derived from what was parsed, never copied from the wire, and the packet is written to the TUN: for the kernel it has just been received.',
      facts: [],
      shown: behindVnet(packet, tulle?.partial ?? false, size),
      begins: 'vnet',
      code: [
        ['lib/datapath/packet-table.ts', 'PacketTable'],
        ['lib/sys/tun.c', 'writeTun'],
      ],
    });
    this.#tell({
      ...far,
      id: 'far-bridge',
      title: 'Route and bridge',
      station: 'bridge',
      captured: false,
      text: 'This node’s kernel routes it from tulle0 to the bridge cni0: the destination lies in its own subnet. One more hop off the TTL.',
      facts: [],
      shown: hopsLater(packet, 1),
      begins: 'inner',
      code: [
        ['kernel', 'ip_forward'],
        ['lib/cni/bridge.ts', 'made the bridge'],
      ],
    });
    this.#tell({
      ...far,
      id: 'far-pod',
      title: 'The pod receives',
      station: 'pod',
      captured: false,
      text: `It comes out of the pod’s veth as it was sent, but for three hops: TTL ${Math.max(0, hopsLeft(packet.bytes) - 1)}. Of 40 bytes of headers and two nodes nothing is to be seen.`,
      facts: [],
      shown: hopsLater(packet, 1),
      begins: 'inner',
      code: [['lib/cni/attach.ts', 'made the veth pair']],
    });
  }

  #tell(draft: Draft): void {
    this.#drafts.push(draft);
  }
}

const commentFact = (sight: Sight | undefined): Fact[] =>
  sight?.record.comment === undefined ? [] : [['the capture says', sight.record.comment]];
