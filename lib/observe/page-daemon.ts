/** One daemon's page: the node itself, its peers as their leases and its probes describe them, its journal. */
import { readFileSync, statSync } from 'node:fs';
import { parseJournal } from '../lease/journal.ts';
import { TulleError } from '../util/errors.ts';
import type { ActionName, Hello, NetworkView, NodeView } from './microscope/model.ts';
import { historyOf } from './page-history.ts';
import { NodeWatch } from './page-nodes.ts';
import type { PageSource } from './page-server.ts';
import { networkOfStatus, peerNodesOfStatus } from './page-status.ts';
import type { Message } from './page-stream.ts';

export interface DaemonPageOptions {
  /** Its control socket. */
  socket: string;
  journalFile: string;
  /** The node's name, once it is known. */
  name: () => string | undefined;
}

const LOOK_MS = 1000;
/** A capture that nobody ends ends by itself. */
const CAPTURE_MS = 60_000;

const UNKNOWN: NodeView = {
  name: 'this node',
  address: '',
  port: 0,
  subnet: '',
  leaseKey: 0,
  leaseEndsAtMs: null,
  healthy: true,
  note: '',
  device: { name: 'tulle0', mtu: 0 },
  underlayMtu: 0,
  transport: '',
  rates: {},
  drops: {},
};

export class DaemonSource implements PageSource {
  readonly #options: DaemonPageOptions;
  #publish: (message: Message) => void = () => {};
  #watch: NodeWatch | undefined;
  #captureEnds: NodeJS.Timeout | undefined;
  #journalSeen = '';

  constructor(options: DaemonPageOptions) {
    this.#options = options;
  }

  hello(): Omit<Hello, 'mayAct'> {
    const name = this.#options.name();
    return {
      kind: 'node',
      title: name === undefined ? 'tulled' : `tulled on ${name}`,
      actions: ['capture'],
      faults: [],
      transports: [],
    };
  }

  start(publish: (message: Message) => void): () => void {
    this.#publish = publish;
    this.#journalSeen = '';
    const base = (): NodeView => ({ ...UNKNOWN, name: this.#options.name() ?? UNKNOWN.name });
    const watch = new NodeWatch(() => [{ socket: this.#options.socket, base: base() }], {
      drops: data => publish({ event: 'drops', data }),
      packets: data => publish({ event: 'packets', data, secret: true }),
    });
    this.#watch = watch;
    let busy = false;
    const look = async (): Promise<void> => {
      if (busy) return;
      busy = true;
      try {
        publish({ event: 'network', data: await this.#look(watch), latest: true });
        this.#tellHistory();
      } catch {
        // the journal cannot be read now; the next look tells
      } finally {
        busy = false;
      }
    };
    publish({ event: 'capture', data: { on: false }, latest: true });
    void look();
    const timer = setInterval(() => void look(), LOOK_MS);
    timer.unref();
    return () => {
      clearInterval(timer);
      clearTimeout(this.#captureEnds);
      watch.close();
      this.#watch = undefined;
      this.#publish = () => {};
    };
  }

  async act(action: ActionName, body: unknown): Promise<{ note?: string }> {
    if (action !== 'capture') throw new TulleError('usage', 'a daemon does nothing but capture');
    await this.#capture((body as { on?: unknown } | null)?.on === true);
    return {};
  }

  async #look(watch: NodeWatch): Promise<NetworkView> {
    const { nodes, peers, statuses } = await watch.look();
    const [status] = statuses;
    return {
      atMs: Date.now(),
      name: nodes[0].name,
      ...networkOfStatus(status),
      nodes: [...nodes, ...peerNodesOfStatus(status, nodes[0])],
      pods: [],
      peers,
      faults: [],
    };
  }

  #tellHistory(): void {
    const { journalFile } = this.#options;
    const stat = statSync(journalFile, { throwIfNoEntry: false });
    const seen = `${stat?.ino} ${stat?.size}`;
    if (stat === undefined || seen === this.#journalSeen) return;
    this.#journalSeen = seen;
    const history = historyOf(parseJournal(readFileSync(journalFile, 'utf8')));
    if (history !== undefined) this.#publish({ event: 'history', data: history, latest: true });
  }

  async #capture(on: boolean): Promise<void> {
    clearTimeout(this.#captureEnds);
    if (on) {
      await this.#watch?.startCapture();
      this.#captureEnds = setTimeout(() => void this.#capture(false), CAPTURE_MS);
      this.#captureEnds.unref();
    } else this.#watch?.stopCapture();
    this.#publish({ event: 'capture', data: { on }, latest: true });
  }
}
