/**
 * The page's news, to any number of browsers, as Server-Sent Events. Memory is bounded whatever they do: a slow reader's
 * oldest messages are dropped, one that takes nothing is cut off, and beyond a number of streams the oldest makes room.
 */
import type { ServerResponse } from 'node:http';

export interface Message {
  event: string;
  data: unknown;
  /** A newer one makes an older one of the same event worthless; a new browser gets the last one. */
  latest?: boolean;
  /** Only for those who have the token. */
  secret?: boolean;
}

export interface StreamLimits {
  /** Browsers at the same time. */
  streams?: number;
  /** Bytes that wait for one browser, beside what its socket holds. */
  queueBytes?: number;
  /** A browser that takes nothing for this long is cut off. */
  stallMs?: number;
}

interface Client {
  response: ServerResponse;
  mayAct: boolean;
  queue: { event: string; latest: boolean; text: string }[];
  queuedBytes: number;
  stalled: NodeJS.Timeout | undefined;
  /** Messages that it never got. */
  dropped: number;
}

const LIMITS = { streams: 128, queueBytes: 512 * 1024, stallMs: 20_000 } satisfies StreamLimits;
/** How long a browser waits before it comes again. */
const RETRY_MS = 3000;
/** A comment now and then, so that a browser that vanished is noticed. */
const PULSE_MS = 15_000;

export class PageStreams {
  readonly #limits: Required<StreamLimits>;
  readonly #clients = new Set<Client>();
  readonly #last = new Map<string, Message>();
  readonly #pulse: NodeJS.Timeout;
  readonly #onCount: (count: number) => void;

  /** `onCount` hears how many browsers look, whenever that changes. */
  constructor(onCount: (count: number) => void, limits: StreamLimits = {}) {
    this.#limits = { ...LIMITS, ...limits };
    this.#onCount = onCount;
    this.#pulse = setInterval(() => {
      for (const client of this.#clients) this.#write(client, 'pulse', true, ': \n\n');
    }, PULSE_MS);
    this.#pulse.unref();
  }

  get size(): number {
    return this.#clients.size;
  }

  /** Messages that slow readers never got. */
  get dropped(): number {
    return [...this.#clients].reduce((sum, client) => sum + client.dropped, 0);
  }

  add(response: ServerResponse, mayAct: boolean): void {
    if (this.#clients.size >= this.#limits.streams) {
      const [oldest] = this.#clients;
      this.#remove(oldest, 'another browser took this one’s place: there were too many');
    }
    const client: Client = { response, mayAct, queue: [], queuedBytes: 0, stalled: undefined, dropped: 0 };
    this.#clients.add(client);
    response.on('close', () => this.#remove(client));
    response.on('error', () => this.#remove(client));
    response.on('drain', () => this.#flush(client));
    this.#write(client, 'retry', true, `retry: ${RETRY_MS}\n\n`);
    for (const message of this.#last.values()) this.#give(client, message, textOf(message));
    this.#onCount(this.#clients.size);
  }

  publish(message: Message): void {
    if (message.latest === true) this.#last.set(message.event, message);
    if (this.#clients.size === 0) return;
    const text = textOf(message);
    for (const client of [...this.#clients]) this.#give(client, message, text);
  }

  close(): void {
    clearInterval(this.#pulse);
    for (const client of [...this.#clients]) this.#remove(client);
  }

  #give(client: Client, { event, latest = false, secret = false }: Message, text: string): void {
    if (!secret || client.mayAct) this.#write(client, event, latest, text);
  }

  #write(client: Client, event: string, latest: boolean, text: string): void {
    const { response, queue } = client;
    if (queue.length === 0 && !response.writableNeedDrain) {
      response.write(text);
      return;
    }
    if (latest)
      this.#forget(
        client,
        queue.findIndex(entry => entry.latest && entry.event === event),
      );
    queue.push({ event, latest, text });
    client.queuedBytes += text.length;
    while (client.queuedBytes > this.#limits.queueBytes && queue.length > 1) {
      this.#forget(client, 0);
      client.dropped++;
    }
    client.stalled ??= setTimeout(() => response.destroy(), this.#limits.stallMs);
  }

  #forget(client: Client, index: number): void {
    const [entry] = index < 0 ? [] : client.queue.splice(index, 1);
    if (entry !== undefined) client.queuedBytes -= entry.text.length;
  }

  #flush(client: Client): void {
    clearTimeout(client.stalled);
    client.stalled = undefined;
    while (client.queue.length > 0 && !client.response.writableNeedDrain) {
      client.response.write(client.queue[0].text);
      this.#forget(client, 0);
    }
    if (client.queue.length > 0) client.stalled = setTimeout(() => client.response.destroy(), this.#limits.stallMs);
  }

  #remove(client: Client, why?: string): void {
    if (!this.#clients.delete(client)) return;
    clearTimeout(client.stalled);
    if (why !== undefined && !client.response.writableNeedDrain)
      client.response.end(textOf({ event: 'bye', data: { why } }));
    else client.response.destroy();
    this.#onCount(this.#clients.size);
  }
}

/** JSON has no line breaks, so one data line is enough. */
const textOf = ({ event, data }: Message): string => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
