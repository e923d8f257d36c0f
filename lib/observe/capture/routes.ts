/**
 * What the control socket, and a page, answer about packets:
 *
 *   GET  /capture?peer=&inner=&snaplen=&count=&seconds=&id=    a pcapng file as it grows (application/x-pcapng)
 *   POST /capture/end?id=                                      ends the one of that id, with its statistics
 *   GET  /packets?peer=&inner=&snaplen=                        JSON lines: the first 200 packets of every second
 *   GET  /drops?peer=&inner=                                   JSON lines: what was dropped, as it happens
 *
 * A line of /packets is a PacketLine, one of /drops a DropLine. A reader that is slow loses the newest of a file, counted in
 * it, and the oldest lines; memory is bounded for all of them.
 */
import { DROP_REASONS, type DropReason } from '../../datapath/counters.ts';
import { TulleError } from '../../util/errors.ts';
import type { Capture, CapturedNode, CaptureOptions, Captures } from '../capture.ts';
import { DEFAULT_SNAPLEN, MOST_CAPTURES } from '../capture.ts';
import type { ControlAnswer, ControlRequest, ControlRoutes, ControlWrite } from '../control.ts';
import { CaptureFile } from './file.ts';
import { type CapturedPacket, type CapturePlace, commentsOf } from './packet.ts';
import { describeCaptured } from './print.ts';
import { BoundedQueue } from './queue.ts';

/** One line of /packets, the shape of a record on its way to a browser (lib/observe/microscope/model.ts). */
export interface PacketLine {
  /** This node's name; empty when it has none. */
  node: string;
  place: CapturePlace;
  /** Microseconds since 1970. */
  atUs: number;
  /** Bytes of the whole packet; `base64` may hold less. From an IP header on: the outer one for a datagram. */
  length: number;
  base64: string;
  drop?: DropReason;
  /** What is known besides: lease, train, segments. */
  comment?: string;
  /** One line in the manner of tcpdump. */
  text: string;
}

/** One line of /drops: what was dropped for one reason in a tenth of a second. */
export interface DropLine {
  atMs: number;
  node: string;
  reason: DropReason;
  /** The reason's sentence. */
  why: string;
  count: number;
  /** The first of them, in the manner of tcpdump. */
  packet: string;
}

const isOuter = (place: CapturePlace): boolean => place === 'udp-send' || place === 'udp-receive';

const PACKETS_PER_SECOND = 200;
const DROPS_EVERY_MS = 100;
const FILE_BUFFER_BYTES = 8 * 1024 * 1024;
const LINES_BUFFER_BYTES = 512 * 1024;
/** Longest that a capture may be asked to run. */
const MOST_SECONDS = 7 * 24 * 3600;
/** Files at once: each may hold FILE_BUFFER_BYTES. */
const MOST_FILES = 4;
/** Streams of lines at once, so that they leave room for files. */
const MOST_STREAMS = MOST_CAPTURES - MOST_FILES;
const LONGEST_SNAPLEN = 262_144;
const IP6_AND_UDP = 48;

export function addCaptureRoutes(routes: ControlRoutes, captures: Captures, node: CapturedNode): void {
  const files = new Map<string, () => void>();
  let [unnamed, streams] = [0, 0];
  const bounded = (make: (request: ControlRequest) => Streaming) => (request: ControlRequest) => {
    checkThere(request);
    if (streams >= MOST_STREAMS)
      throw new TulleError('busy', `${MOST_STREAMS} streams run already: end one of them first`);
    const answer = make(request);
    streams++;
    request.signal.addEventListener('abort', () => streams--);
    return answer;
  };
  routes.add('GET', '/capture', request => {
    checkThere(request);
    if (files.size >= MOST_FILES)
      throw new TulleError('busy', `${MOST_FILES} captures run already: end one of them first`);
    const id = request.query.get('id') ?? `unnamed ${++unnamed}`;
    if (files.has(id)) throw new TulleError('bad-request', `a capture with the id "${id}" runs already`);
    return captureFile(captures, node, request, {
      begun: end => files.set(id, end),
      ended: () => files.delete(id),
    });
  });
  routes.add('POST', '/capture/end', ({ query }) => {
    const end = files.get(query.get('id') ?? '');
    if (end === undefined) throw new TulleError('not-found', 'there is no such capture; it may have ended');
    end();
    return { json: { ended: true } };
  });
  routes.add(
    'GET',
    '/packets',
    bounded(request => packetLines(captures, node, request)),
  );
  routes.add(
    'GET',
    '/drops',
    bounded(request => dropLines(captures, node, request)),
  );
}

/** A client that has gone already would never be told to have gone. */
function checkThere({ signal }: ControlRequest): void {
  if (signal.aborted) throw new TulleError('gone', 'the client went away');
}

type Streaming = Extract<ControlAnswer, { stream: unknown }>;

function captureFile(
  captures: Captures,
  node: CapturedNode,
  { query, signal: gone }: ControlRequest,
  hear: { begun(end: () => void): void; ended(): void },
): Streaming {
  const snaplen = numberOf(query, 'snaplen', 0, LONGEST_SNAPLEN) ?? DEFAULT_SNAPLEN;
  const count = numberOf(query, 'count', 1, Number.MAX_SAFE_INTEGER) ?? Number.POSITIVE_INFINITY;
  const seconds = numberOf(query, 'seconds', 1, MOST_SECONDS);
  const overlay = node.overlay();
  const queue = new BoundedQueue(FILE_BUFFER_BYTES, 'refuse');
  let refused = 0;
  let [written, told] = [0, 0];
  let file: CaptureFile | undefined;
  let over = false;
  const finish = (): void => {
    if (over) return;
    over = true;
    hear.ended();
    capture.close();
    clearTimeout(timer);
    if (file !== undefined) queue.push(file.end(capture.lost + refused), true);
    queue.end();
  };
  const options = { ...chosen(query), snaplen };
  const capture: Capture = captures.open({
    ...options,
    onPacket(packet, lost) {
      if (file === undefined || written >= count) return;
      if (!file.packet(packet, lost + refused - told, block => queue.push(block))) {
        refused++;
        return;
      }
      told = lost + refused;
      if (++written === count) finish();
    },
  });
  if (overlay !== undefined) {
    // libpcap wants one snaplen for all interfaces, so the outer headers count for the TUN as well.
    const inFile = snaplen === 0 ? 0 : snaplen + IP6_AND_UDP;
    const { device, local } = overlay;
    file = new CaptureFile({ node: node.name(), device, local, snaplen: inFile, comment: commentOf(query) }, now());
    queue.push(file.header(), true);
  }
  const timer = seconds === undefined ? undefined : setTimeout(finish, seconds * 1000);
  gone.addEventListener('abort', finish);
  hear.begun(finish);
  return {
    type: 'application/x-pcapng',
    stream: (write, signal) => queue.pump(write, signal).finally(finish),
  };
}

function packetLines(captures: Captures, node: CapturedNode, { query, signal }: ControlRequest): Streaming {
  const snaplen = numberOf(query, 'snaplen', 0, LONGEST_SNAPLEN) ?? DEFAULT_SNAPLEN;
  return lines(captures, signal, { ...chosen(query), snaplen, perSecond: PACKETS_PER_SECOND }, () => ({
    onPacket: packet => packetLine(packet, node.name() ?? ''),
  }));
}

function packetLine(packet: CapturedPacket, node: string): PacketLine {
  const comment = commentsOf(packet).join('; ');
  return {
    node,
    place: packet.place,
    atUs: Number(packet.time / 1000n),
    length: packet.length,
    base64: Buffer.from(packet.bytes).toString('base64'),
    ...(packet.drop !== undefined && { drop: packet.drop }),
    ...(comment !== '' && { comment }),
    text: describeCaptured(packet.bytes, packet.length, isOuter(packet.place)),
  };
}

function dropLines(captures: Captures, node: CapturedNode, { query, signal }: ControlRequest): Streaming {
  return lines(captures, signal, { ...chosen(query), dropsOnly: true }, send => {
    let pending = new Map<DropReason, DropLine>();
    const timer = setInterval(() => {
      for (const line of pending.values()) send(line);
      pending = new Map();
    }, DROPS_EVERY_MS);
    return {
      onPacket(packet) {
        const reason = packet.drop;
        if (reason === undefined) return undefined;
        const line = pending.get(reason);
        if (line !== undefined) line.count++;
        else {
          const atMs = Number(packet.time / 1_000_000n);
          const text = describeCaptured(packet.bytes, packet.length, isOuter(packet.place));
          const why = DROP_REASONS[reason];
          pending.set(reason, { atMs, node: node.name() ?? '', reason, why, count: 1, packet: text });
        }
        return undefined;
      },
      end: () => clearInterval(timer),
    };
  });
}

interface LineMaker {
  /** The line of a packet, or undefined when it comes later. */
  onPacket(packet: CapturedPacket): object | undefined;
  end?(): void;
}

function lines(
  captures: Captures,
  gone: AbortSignal,
  options: Omit<CaptureOptions, 'onPacket'>,
  make: (send: (line: object) => void) => LineMaker,
): Streaming {
  const queue = new BoundedQueue(LINES_BUFFER_BYTES, 'forget');
  const send = (line: object): void => void queue.push(Buffer.from(`${JSON.stringify(line)}\n`));
  let maker: LineMaker | undefined;
  const capture = captures.open({
    ...options,
    onPacket(packet) {
      const line = maker?.onPacket(packet);
      if (line !== undefined) send(line);
    },
  });
  // A client may go away before its stream begins.
  gone.addEventListener('abort', () => capture.close());
  return {
    type: 'application/x-ndjson',
    async stream(write: ControlWrite, signal: AbortSignal) {
      maker = make(send);
      try {
        await queue.pump(write, signal);
      } finally {
        maker.end?.();
        capture.close();
      }
    },
  };
}

function chosen(query: URLSearchParams): Pick<CaptureOptions, 'peer' | 'inner'> {
  return { peer: query.get('peer') ?? undefined, inner: query.get('inner') ?? undefined };
}

function commentOf(query: URLSearchParams): string {
  const words = ['peer', 'inner'].flatMap(name => (query.has(name) ? [`--${name} "${query.get(name)}"`] : []));
  return ['tulle capture', ...words].join(' ');
}

function numberOf(query: URLSearchParams, name: string, least: number, most: number): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : -1;
  if (value < least || value > most)
    throw new TulleError('bad-request', `${name} "${text.slice(0, 40)}": a number from ${least} to ${most}`);
  return value;
}

const now = (): bigint => BigInt(Date.now()) * 1_000_000n;
