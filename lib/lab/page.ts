/**
 * The lab's page: everything that all nodes tell, what the links of the lab carry, and the lab's own verbs (send a packet,
 * make a fault, measure) for the buttons. It works only while somebody looks.
 */
import { readFileSync, statSync } from 'node:fs';
import type { Past } from '../lease/history.ts';
import { journalPath, parseJournal } from '../lease/journal.ts';
import type { ActionName, Hello, MeasureView, NetworkView, NodeView, PodView } from '../observe/microscope/model.ts';
import { historyOf } from '../observe/page-history.ts';
import { type NodeEnd, NodeWatch } from '../observe/page-nodes.ts';
import { PAGE_PORT, type PageServer, type PageSource, startPageServer } from '../observe/page-server.ts';
import type { Message } from '../observe/page-stream.ts';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import { controlSocket, nodeDirectory } from './cluster.ts';
import { addFault, removeFault } from './fault.ts';
import { loadFaults } from './fault-record.ts';
import type { End } from './measure.ts';
import { faultForms, faultView, specOf } from './page-faults.ts';
import { LinkRates } from './page-links.ts';
import { climbLadder, LADDER } from './page-measure.ts';
import { freeAddress, sendOf, sendPacket } from './page-send.ts';
import type { LabFacts, NodeFacts } from './picture.ts';
import type { LabTransport } from './plan.ts';
import { type LabState, namespaceFile } from './state.ts';

export interface LabPageOptions {
  state: LabState;
  facts: LabFacts;
  /** undefined: PAGE_PORT, or any free one when that is taken. */
  port: number | undefined;
  /** Where the page is served instead, for a lab inside namespaces of its own. */
  socketPath?: string;
  /** The same nodes on another transport. */
  replace(transport: LabTransport): Promise<void>;
  /** What etcd remembers. */
  past?: () => Promise<Past>;
  signal: AbortSignal;
}

/** How often the network is looked at; larger labs less often. */
const LOOK_MS = 1000;
const NODES_PER_SECOND = 10;
/** Links of so many pods are read; of more the rates would cost more than they tell. */
const MOST_PODS = 64;
/** A capture that nobody ends ends by itself. */
const CAPTURE_MS = 60_000;
/** After what was sent has been answered: time for the last records to come. */
const SETTLE_MS = 250;

export async function startLabPage(options: LabPageOptions): Promise<PageServer> {
  const source = new LabSource(options);
  const { port, socketPath } = options;
  const start = (wanted: number): Promise<PageServer> =>
    startPageServer({ port: wanted, source, ...(socketPath !== undefined && { socketPath }) });
  if (port !== undefined) return start(port);
  try {
    return await start(PAGE_PORT);
  } catch (error) {
    if (codeOf(error) !== 'bad-page') throw error;
    return start(0); // another lab's page is there
  }
}

class LabSource implements PageSource {
  readonly #options: LabPageOptions;
  readonly #nodes: readonly NodeFacts[];
  readonly #pods: readonly End[];
  /** An address that nobody leases. */
  readonly #free: string;
  #publish: (message: Message) => void = () => {};
  #watch: NodeWatch | undefined;
  #captureEnds: NodeJS.Timeout | undefined;
  #measuring = false;
  /** What is being sent now: all of it is captured. */
  #sending = 0;
  #transport: string;
  #journalSeen = '';
  #past: Past | undefined;
  #measured: MeasureView | undefined;

  constructor(options: LabPageOptions) {
    this.#options = options;
    this.#nodes = options.facts.nodes;
    this.#transport = options.facts.transport;
    this.#free = freeAddress(
      options.facts.network,
      options.facts.nodes.map(node => node.subnet),
    );
    this.#pods = options.facts.pods.map(({ name, address }) => ({
      name,
      namespaceFile: namespaceFile(options.state, name),
      address,
    }));
  }

  hello(): Omit<Hello, 'mayAct'> {
    const { name, nodes } = this.#options.facts;
    return {
      kind: 'lab',
      title: `lab “${name}”, ${nodes.length} nodes`,
      actions: ['send', 'capture', 'fault', 'mend', 'measure'],
      faults: faultForms(),
      transports: [...LADDER],
    };
  }

  start(publish: (message: Message) => void): () => void {
    this.#publish = publish;
    this.#journalSeen = '';
    const ends = this.#nodes.map(node => this.#endOf(node));
    const watch = new NodeWatch(() => ends, {
      drops: data => publish({ event: 'drops', data }),
      packets: data => publish({ event: 'packets', data, secret: true }),
    });
    this.#watch = watch;
    const rates = new LinkRates();
    let busy = false;
    const look = async (): Promise<void> => {
      if (busy) return;
      busy = true;
      try {
        const data = await this.#look(watch, rates);
        if (this.#watch === watch) publish({ event: 'network', data, latest: true });
        await this.#tellHistory();
      } catch {
        // a namespace that is being taken down; the next look tells
      } finally {
        busy = false;
      }
    };
    void look();
    publish({ event: 'capture', data: { on: false }, latest: true });
    if (this.#measured !== undefined) publish({ event: 'measure', data: this.#measured, latest: true });
    const every = LOOK_MS * Math.max(1, this.#nodes.length / NODES_PER_SECOND);
    const timer = setInterval(() => void look(), every);
    timer.unref();
    return () => {
      clearInterval(timer);
      clearTimeout(this.#captureEnds);
      this.#captureEnds = undefined;
      watch.close();
      this.#watch = undefined;
      this.#publish = () => {};
    };
  }

  async act(action: ActionName, body: unknown): Promise<{ note?: string }> {
    const { state } = this.#options;
    switch (action) {
      case 'send':
        return { note: await this.#send(body) };
      case 'capture':
        await this.#capture((body as { on?: unknown } | null)?.on === true);
        return {};
      case 'fault': {
        const fault = await addFault(state, specOf(body));
        return { note: faultView(fault).text };
      }
      case 'mend': {
        const id = (body as { id?: unknown } | null)?.id;
        if (typeof id !== 'string') throw new TulleError('usage', 'which fault?');
        const gone = await removeFault(state, id);
        return { note: `mended: ${gone.map(fault => faultView(fault).text).join('; ')}` };
      }
      case 'measure':
        this.#measure();
        return {};
    }
  }

  async #look(watch: NodeWatch, rates: LinkRates): Promise<NetworkView> {
    const { state, facts } = this.#options;
    const { nodes, peers } = await watch.look();
    const withRates = nodes.map(
      (node): NodeView => ({
        ...node,
        rates: rates.of(namespaceFile(state, node.name)),
        underlayMtu: node.underlayMtu,
      }),
    );
    const pods = facts.pods.map(({ name, node, address, mtu }, i): PodView => {
      const rate = i < MOST_PODS ? rates.of(namespaceFile(state, name))['eth0'] : undefined;
      return { name, node, address, mtu, ...(rate !== undefined && { rate }) };
    });
    const faults = loadFaults(state).faults.filter(fault => fault.state === 'on');
    return {
      atMs: Date.now(),
      name: facts.name,
      network: facts.network,
      underlay: facts.underlay,
      registry: facts.registry,
      nodes: withRates,
      pods,
      peers,
      faults: faults.map(faultView),
    };
  }

  #endOf(node: NodeFacts): NodeEnd {
    const { state } = this.#options;
    const base: NodeView = {
      name: node.name,
      address: node.address,
      port: node.port,
      subnet: node.subnet,
      leaseKey: node.leaseKey,
      leaseEndsAtMs: null,
      healthy: true,
      note: '',
      device: { name: node.device.name, mtu: node.device.mtu },
      underlayMtu: node.underlayMtu,
      transport: this.#transport,
      rates: {},
      drops: {},
    };
    return { socket: controlSocket(state, node.name), base };
  }

  /** The journal of the first node, when it has grown; all nodes follow the same registry. */
  async #tellHistory(): Promise<void> {
    const { state, past } = this.#options;
    const path = journalPath(`${nodeDirectory(state, this.#nodes[0].name)}/subnet.env`);
    const stat = statSync(path, { throwIfNoEntry: false });
    const seen = `${stat?.ino} ${stat?.size}`;
    if (stat === undefined || seen === this.#journalSeen) return;
    this.#journalSeen = seen;
    if (past !== undefined) this.#past = await past().catch(() => this.#past);
    const history = historyOf(parseJournal(readFileSync(path, 'utf8')), this.#past);
    if (history !== undefined) this.#publish({ event: 'history', data: history, latest: true });
  }

  async #send(body: unknown): Promise<string> {
    const { from, to, kind, size } = sendOf(body, this.#pods, this.#free);
    if (this.#measuring) throw new TulleError('busy', 'a measurement runs: wait until it is done');
    const watch = this.#watch;
    this.#sending++;
    try {
      await watch?.startCapture();
      return await sendPacket(from, to, kind, size);
    } finally {
      await new Promise(resolve => setTimeout(resolve, SETTLE_MS));
      if (--this.#sending === 0 && this.#captureEnds === undefined) watch?.stopCapture();
    }
  }

  async #capture(on: boolean): Promise<void> {
    clearTimeout(this.#captureEnds);
    this.#captureEnds = undefined;
    if (on) {
      await this.#watch?.startCapture();
      this.#captureEnds = setTimeout(() => void this.#capture(false), CAPTURE_MS);
      this.#captureEnds.unref();
    } else this.#watch?.stopCapture();
    this.#publish({ event: 'capture', data: { on }, latest: true });
  }

  /** In the background: the page hears of it. */
  #measure(): void {
    if (this.#measuring) throw new TulleError('busy', 'a measurement runs already');
    const { state, facts, replace, signal } = this.#options;
    const podOn = (node: NodeFacts): End => this.#pods[facts.pods.findIndex(pod => pod.node === node.name)] as End;
    const bareOf = ({ name, address }: NodeFacts): End => ({
      name,
      address,
      namespaceFile: namespaceFile(state, name),
    });
    const [near, far] = this.#nodes;
    this.#measuring = true;
    const publish = (data: MeasureView): void => {
      this.#measured = data;
      this.#publish({ event: 'measure', data, latest: true });
    };
    climbLadder({
      pods: [podOn(near), podOn(far)],
      bare: [bareOf(near), bareOf(far)],
      transport: facts.transport as LabTransport,
      seconds: facts.tcp.seconds,
      replace,
      publish,
      signal,
    })
      .catch(error => publish({ running: false, note: messageOf(error), from: near.name, to: far.name, runs: [] }))
      .finally(() => {
        this.#measuring = false;
      });
  }
}
