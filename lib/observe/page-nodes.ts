/**
 * Daemons as the page sees them: asked for their status now and then, listened to for drops, and for packets while somebody
 * captures. One daemon or all of a lab; each is reached through its control socket, and one that does not answer is shown so.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf, messageOf } from '../util/errors.ts';
import { askControl, openControlStream } from './control-client.ts';
import { jsonLines } from './json-lines.ts';
import type { DropEvent, NodeView, PeerView, SentRecord } from './microscope/model.ts';
import { dropCountsOf, nodeOfStatus, peersOfStatus } from './page-status.ts';

/** One daemon. */
export interface NodeEnd {
  readonly socket: string;
  /** What is known of it without asking. */
  readonly base: NodeView;
}

export interface NodeNews {
  drops(events: DropEvent[]): void;
  packets(records: SentRecord[]): void;
}

const ASK_MS = 3000;
const AGAIN_MS = 2000;
/** Packets are handed on together, at most so many at once. */
const BATCH_MS = 120;
const MOST_IN_BATCH = 400;
/** Enough for the headers of everything and some payload. */
const SNAPLEN = 384;

export class NodeWatch {
  readonly #ends: () => readonly NodeEnd[];
  readonly #news: NodeNews;
  readonly #gone = new AbortController();
  /** Drops by node and reason when we last looked; of nodes whose drops do not stream. */
  readonly #counts = new Map<string, Record<string, number>>();
  readonly #streaming = new Set<string>();
  #capture: AbortController | undefined;
  #begun: Promise<unknown> = Promise.resolve();
  #batch: SentRecord[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** `ends` may change from call to call. Listening for drops begins at once. */
  constructor(ends: () => readonly NodeEnd[], news: NodeNews) {
    this.#ends = ends;
    this.#news = news;
    for (const end of ends()) void this.#followDrops(end.base.name);
  }

  /** Asks all of them. Never rejects. */
  async look(): Promise<{ nodes: NodeView[]; peers: PeerView[]; statuses: unknown[] }> {
    const answers = await Promise.all(this.#ends().map(end => this.#ask(end)));
    return {
      nodes: answers.map(({ node }) => node),
      peers: answers.flatMap(({ peers }) => peers),
      statuses: answers.map(({ status }) => status),
    };
  }

  get capturing(): boolean {
    return this.#capture !== undefined;
  }

  /** Packets of all nodes, until `stopCapture`. Resolves when every node that answers captures. */
  async startCapture(): Promise<void> {
    if (this.#capture === undefined) {
      const capture = new AbortController();
      this.#capture = capture;
      this.#begun = Promise.all(this.#ends().map(end => this.#listen(end, capture.signal)));
    }
    await this.#begun;
  }

  stopCapture(): void {
    this.#capture?.abort();
    this.#capture = undefined;
    this.#flush();
  }

  close(): void {
    this.stopCapture();
    this.#gone.abort();
    clearTimeout(this.#timer);
  }

  async #ask({ socket, base }: NodeEnd): Promise<{ node: NodeView; peers: PeerView[]; status: unknown }> {
    try {
      const status = await askControl(socket, { path: '/status', timeoutMs: ASK_MS });
      this.#countDrops(base.name, dropCountsOf(status));
      const node = nodeOfStatus(status, base);
      return { node, peers: peersOfStatus(status, node.name), status };
    } catch (error) {
      const note = codeOf(error) === 'no-daemon' ? 'tulled does not run' : messageOf(error);
      return { node: { ...base, healthy: false, note }, peers: [], status: undefined };
    }
  }

  /** Where drops do not stream, the counters tell. */
  #countDrops(name: string, counts: Record<string, number>): void {
    const before = this.#counts.get(name);
    this.#counts.set(name, counts);
    if (before === undefined || this.#streaming.has(name)) return;
    const events = Object.entries(counts)
      .map(([reason, count]) => ({ atMs: Date.now(), node: name, reason, count: count - (before[reason] ?? 0) }))
      .filter(({ count }) => count > 0);
    if (events.length > 0) this.#news.drops(events);
  }

  /** For as long as somebody looks; a daemon that ends is asked again, and may be another one then. */
  async #followDrops(name: string): Promise<void> {
    const { signal } = this.#gone;
    while (!signal.aborted) {
      const end = this.#ends().find(({ base }) => base.name === name);
      try {
        if (end !== undefined) {
          const stream = await openControlStream(end.socket, '/drops', signal);
          this.#streaming.add(name);
          for await (const line of jsonLines(stream)) {
            const event = dropOf(line, name);
            if (event !== undefined) this.#news.drops([event]);
          }
        }
      } catch {
        // asked again below
      }
      this.#streaming.delete(name);
      await delay(AGAIN_MS, undefined, { signal }).catch(() => {});
    }
  }

  async #listen({ socket, base }: NodeEnd, signal: AbortSignal): Promise<void> {
    let stream: AsyncIterable<Uint8Array>;
    try {
      stream = await openControlStream(socket, `/packets?snaplen=${SNAPLEN}`, signal);
    } catch {
      return; // its status says what is wrong
    }
    void this.#take(stream, base.name);
  }

  async #take(stream: AsyncIterable<Uint8Array>, name: string): Promise<void> {
    try {
      for await (const line of jsonLines(stream)) {
        const record = recordOf(line, name);
        if (record === undefined || this.#batch.length >= MOST_IN_BATCH) continue;
        this.#batch.push(record);
        this.#timer ??= setTimeout(() => this.#flush(), BATCH_MS);
      }
    } catch {
      // the daemon ended, or the capture did
    }
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#batch.length > 0) this.#news.packets(this.#batch);
    this.#batch = [];
  }
}

/** A line of /drops. */
function dropOf(line: unknown, node: string): DropEvent | undefined {
  const { atMs, reason, count, packet } = line as Record<string, unknown>;
  if (typeof atMs !== 'number' || typeof reason !== 'string' || typeof count !== 'number') return undefined;
  return { atMs, node, reason, count, ...(typeof packet === 'string' && { packet }) };
}

/** A line of /packets. */
function recordOf(line: unknown, node: string): SentRecord | undefined {
  const { place, atUs, length, base64, drop, comment } = line as Record<string, unknown>;
  const isPlace = place === 'tun-read' || place === 'udp-send' || place === 'udp-receive' || place === 'tun-write';
  if (!isPlace || typeof atUs !== 'number' || typeof length !== 'number' || typeof base64 !== 'string')
    return undefined;
  const more = {
    ...(typeof drop === 'string' && { drop }),
    ...(typeof comment === 'string' && comment !== '' && { comment }),
  };
  return { node, place, atUs, length, base64, ...more };
}
