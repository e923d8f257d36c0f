/**
 * A cluster under everything that may happen to it, in virtual time, from one seed.
 *
 * Asserted all the time:
 * - no two nodes would forward for one subnet, or for two that overlap;
 * - a node that loses its key behind its back (an operator's hand, a registry restored from a backup) and can hear of it
 *   does not forward for it any more within seconds, whatever time is left of the lease;
 * - a node whose registry can be reached misses no renewal;
 * - the changes that reconcile gives are those that lead from one route table to the next, and never our own lease.
 * Asserted at the end, once the world is well again for some TTLs:
 * - every node has a subnet, or every subnet has a node where there are more nodes; nobody is fenced;
 * - every route table is what a naive reader of the registry would write down.
 * The hash of the trace is the same whenever the seed is.
 */
import { createHash } from 'node:crypto';
import { fitsConfig, parseNetworkConfig } from '../../lib/lease/config.ts';
import { parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';
import { LeaseManager } from '../../lib/lease/manager.ts';
import { messageOf } from '../../lib/util/errors.ts';
import { formatCidr4, overlaps4, subnetAt } from '../../lib/wire/cidr.ts';
import { prng } from '../support/prng.ts';
import { Robber } from './robber.ts';
import { type NodeWorld, SimNode } from './sim-node.ts';
import { SimStore } from './sim-registry.ts';
import { Timeline } from './timeline.ts';

export interface SimulationOptions {
  seed: number;
  /** How many nodes; else the seed says. */
  nodes?: number;
  /** Another manager, to see whether its faults are found. */
  Manager?: typeof LeaseManager;
  /** Gets every line of the trace. */
  onLine?: (line: string) => void;
}

export interface SimulationResult {
  seed: number;
  nodes: number;
  /** What kind of a world it was. */
  kind: string;
  /** SHA-256 of the trace, hex. */
  hash: string;
  events: number;
  virtualHours: number;
  /** What was asserted and did not hold. */
  violation?: string;
  /** The last lines before it. */
  tail: string[];
}

class Violation extends Error {}

/** Runs one seed; never throws for what the simulation finds. */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const world = new World(options);
  let violation: string | undefined;
  try {
    await world.run();
  } catch (error) {
    violation = error instanceof Violation ? error.message : `broken: ${messageOf(error)}`;
  }
  return world.result(violation);
}

class World {
  readonly #options: SimulationOptions;
  readonly #next: () => number;
  readonly #timeline = new Timeline();
  readonly #store: SimStore;
  readonly #nodes: SimNode[];
  readonly #robber: Robber;
  readonly #hash = createHash('sha256');
  readonly #tail: string[] = [];
  readonly #kind: string;
  readonly #capacity: number;
  readonly #ttlSeconds: number;
  readonly #isLong: boolean;
  #violation: string | undefined;
  #registryUp = true;
  #healed = false;
  /** How many of 1000 messages are lost, and how many late. */
  #lost: number;
  #late: number;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.#next = prng(options.seed);
    const large = options.seed % 200 === 199;
    this.#kind = large ? 'large' : ['roomy', 'tight', 'scarce', 'changing'][this.#below(4)];
    // flannel's day, with the smallest margin that its flag allows: few nodes, because each reads the net-conf every minute.
    this.#isLong = options.seed % 200 === 13;
    this.#ttlSeconds = this.#isLong ? 86_400 : [60, 90, 300][this.#below(this.#kind === 'scarce' ? 2 : 3)];
    // In a scarce world those who have none ask without end, which costs the most.
    const most = this.#kind === 'scarce' ? 15 : options.seed % 10 === 7 ? 50 : 11;
    const count = options.nodes ?? (large ? 1000 : 3 + this.#below(this.#isLong ? 3 : most));
    this.#capacity = this.#kind === 'scarce' ? Math.ceil(count * 0.7) : this.#kind === 'tight' ? count : 4 * count;
    const calm = this.#below(3) === 0;
    this.#lost = calm ? 0 : this.#below(60);
    this.#late = calm ? 0 : this.#below(60);
    this.#store = new SimStore(this.#timeline, this.#config(this.#capacity, 24));

    const clones = this.#below(4) === 0;
    this.#nodes = Array.from({ length: count }, (_, i) => {
      const address = `10.88.${i >> 8}.${i & 255}`;
      const nodeId = clones && i % 5 === 1 ? 'clone' : `id${i}`;
      // NTP slews by 500 ppm at most; the registry's clock is the true one here, so ours may be off by twice that.
      const rate = 1 + (this.#random() - 0.5) * 0.002;
      return new SimNode(this.#nodeWorld(large), {
        name: `n${i}`,
        address,
        nodeId,
        rate,
        follows: i < (large ? 3 : 8),
      });
    });
    this.#robber = new Robber({
      timeline: this.#timeline,
      store: this.#store,
      nodes: this.#nodes,
      ttlSeconds: this.#ttlSeconds,
      isOver: () => this.#healed,
      isReachable: () => this.#registryUp,
      trace: this.#trace,
      violated: what => {
        this.#violation ??= what;
      },
    });
    // Some have a reservation from their operator.
    for (let i = 0; i < count && i < this.#capacity; i += 7) {
      if (this.#below(3) !== 0) continue;
      const subnets = parseSubnetKey(formatCidr4(subnetAt(i + 1, network, 24)).replace('/', '-'))!;
      this.#store.create({ ...subnets, attributes: { PublicIP: this.#nodes[i].address, PublicIPv6: null } }, null);
    }
  }

  async run(): Promise<void> {
    const ttlMs = this.#ttlSeconds * 1000;
    const chaosTtls: number = this.#isLong
      ? 1.2
      : (({ large: 2, scarce: 6 } as Record<string, number>)[this.#kind] ?? 8);
    const untilMs = chaosTtls * ttlMs;
    for (const node of this.#nodes) this.#timeline.at(this.#random() * 2000, () => node.start());
    this.#planFaults(untilMs, ttlMs);
    await this.#timeline.runUntil(untilMs, this.#check);
    this.#heal();
    await this.#timeline.runUntil(
      untilMs + (this.#isLong ? 1.2 : this.#kind === 'large' ? 1.5 : 3) * ttlMs + 60_000,
      this.#check,
    );
    this.#checkEnd();
  }

  result(violation: string | undefined): SimulationResult {
    return {
      seed: this.#options.seed,
      nodes: this.#nodes.length,
      kind: this.#kind,
      hash: this.#hash.digest('hex'),
      events: this.#timeline.events,
      virtualHours: this.#timeline.now / 3_600_000,
      ...(violation !== undefined && { violation: `${violation} (at ${this.#timeline.now.toFixed(3)} ms)` }),
      tail: this.#tail,
    };
  }

  #random = (): number => this.#next() / 2 ** 32;
  #below = (n: number): number => Math.floor(this.#random() * n);
  #pick = (): SimNode => this.#nodes[this.#below(this.#nodes.length)];

  #trace = (text: string): void => {
    const line = `${this.#timeline.now.toFixed(3)} ${text}`;
    this.#hash.update(`${line}\n`);
    this.#options.onLine?.(line);
    this.#tail.push(line);
    if (this.#tail.length > 60) this.#tail.shift();
  };

  #config(capacity: number, subnetLength: number): string {
    const last = subnetAt(capacity, network, subnetLength);
    const SubnetMax = formatCidr4(last).split('/')[0];
    const Backend = { Type: 'tulle' };
    return JSON.stringify({ Network: formatCidr4(network), SubnetLen: subnetLength, SubnetMax, Backend });
  }

  #nodeWorld(large: boolean): NodeWorld {
    const fate = (): number | undefined => {
      const dice = this.#below(1000);
      if (dice < this.#lost) return undefined;
      // Late: answered in time all the same, or done long after its sender has given it up.
      if (dice < this.#lost + this.#late) return 500 + this.#random() * (this.#below(2) === 0 ? 4000 : 40_000);
      return 1 + this.#random() * 10;
    };
    const batch = large ? 2000 : 200;
    return {
      wire: {
        timeline: this.#timeline,
        store: this.#store,
        request: fate,
        answer: fate,
        batchMs: () => 1 + this.#random() * batch,
      },
      registryIsUp: () => this.#registryUp,
      random: this.#random,
      trace: this.#trace,
      violated: what => {
        this.#violation ??= what;
      },
      onOwner: node => this.#checkOwner(node),
      ttlSeconds: this.#ttlSeconds,
      marginSeconds: this.#isLong ? 60 : [this.#ttlSeconds / 2, 3600][this.#below(2)],
      restartMs: 2000,
      eager: this.#kind === 'scarce',
      Manager: this.#options.Manager ?? LeaseManager,
    };
  }

  // ---- what happens to them

  #planFaults(untilMs: number, ttlMs: number): void {
    const often = Math.max(6, this.#nodes.length * (this.#nodes.length > 500 ? 0.3 : 1.5));
    const faults: [number, () => void][] = [
      [4, () => this.#cut(this.#pick(), this.#below(4) === 0 ? 'deaf' : 'down', this.#random() * 2.5 * ttlMs)],
      [3, () => this.#crash(this.#pick(), this.#random() * 2 * ttlMs)],
      [2, () => this.#suspend(this.#pick(), Math.min(this.#random() * 2 * ttlMs, untilMs - this.#timeline.now))],
      [2, () => this.#jump(this.#pick())],
      [1, () => this.#compact()],
      [0.5, () => this.#partition(this.#random() * 2 * ttlMs)],
      [0.4, () => this.#outage(this.#random() * 1.5 * ttlMs)],
      [0.3, () => this.#readOnly(this.#random() * 1.2 * ttlMs)],
      [0.5, () => this.#robber.drop(this.#pick())],
      [0.3, () => this.#robber.overwrite(this.#pick())],
      [0.3, () => this.#robber.rollBack(this.#random() * ttlMs)],
    ];
    const sum = faults.reduce((total, [weight]) => total + weight, 0);
    for (let i = 0; i < often; i++) {
      let dice = this.#random() * sum;
      let chosen = 0;
      while (dice >= faults[chosen][0]) dice -= faults[chosen++][0];
      const fault = faults[chosen][1];
      this.#timeline.at(3000 + this.#random() * (untilMs - 3000), fault);
    }
    if (this.#kind === 'changing') this.#timeline.at(untilMs * (0.3 + this.#random() * 0.4), () => this.#change());
  }

  #cut(node: SimNode, link: 'down' | 'deaf', forMs: number): void {
    // A link that dies is often bad for a while before.
    const slowMs = this.#below(3) === 0 ? this.#random() * 1000 * this.#ttlSeconds : 0;
    if (slowMs > 0) this.#setLink(node, 'slow');
    this.#timeline.after(slowMs, () => this.#setLink(node, link));
    this.#timeline.after(slowMs + forMs, () => this.#setLink(node, 'up'));
  }

  #setLink(node: SimNode, link: SimNode['link']): void {
    if (this.#healed) return;
    this.#trace(`${node.name} is ${link}`);
    node.link = link;
    this.#disturb(node);
  }

  #partition(forMs: number): void {
    for (const node of this.#nodes) if (this.#below(2) === 0) this.#cut(node, 'down', forMs);
  }

  #crash(node: SimNode, forMs: number): void {
    if (!node.running) return;
    node.crash(this.#below(2) === 0);
    this.#timeline.after(forMs, () => {
      if (!node.running) node.start();
    });
  }

  #suspend(node: SimNode, forMs: number): void {
    if (node.suspendedUntil > this.#timeline.now) return;
    this.#trace(`${node.name} sleeps`);
    node.suspendedUntil = this.#timeline.now + forMs;
    this.#disturb(node);
    this.#timeline.after(forMs + 10_000, () => this.#disturb(node));
  }

  #jump(node: SimNode): void {
    node.wallOffset += (this.#random() - 0.5) * 10 * 86_400_000;
    this.#trace(`${node.name} has its wall clock set`);
  }

  #compact(): void {
    this.#store.compact();
    this.#trace('the registry compacts');
  }

  #outage(forMs: number): void {
    this.#registryUp = false;
    this.#disturbAll();
    this.#trace('the registry is away');
    this.#timeline.after(forMs, () => {
      this.#registryUp = true;
      if (this.#below(2) === 0) this.#store.extendAll(this.#ttlSeconds);
      this.#disturbAll();
      this.#trace('the registry is back');
    });
  }

  #readOnly(forMs: number): void {
    this.#store.readOnly = true;
    this.#trace('the registry is read-only');
    this.#timeline.after(forMs, () => {
      this.#store.readOnly = false;
      this.#disturbAll();
      this.#trace('the registry can be written');
    });
  }

  /** The operator writes another net-conf: half of the range, or another length of the subnets. */
  #change(): void {
    const capacity = Math.ceil(this.#capacity / 2);
    this.#store.configText = this.#below(2) === 0 ? this.#config(capacity, 24) : this.#config(2 * capacity, 25);
    this.#trace(`the net-conf changes: ${this.#store.configText}`);
  }

  #disturb(node: SimNode): void {
    node.troubledAt = this.#timeline.now;
    node.disturbedAt = this.#timeline.now;
  }

  #disturbAll(): void {
    for (const node of this.#nodes) this.#disturb(node);
  }

  #heal(): void {
    this.#trace('all is well from here on');
    this.#healed = true;
    this.#registryUp = true;
    this.#store.readOnly = false;
    this.#lost = 0;
    this.#late = 0;
    this.#disturbAll();
    for (const node of this.#nodes) {
      node.link = 'up';
      if (!node.running) node.start();
    }
  }

  // ---- what must hold

  #check = (): void => {
    if (this.#violation !== undefined) throw new Violation(this.#violation);
  };

  /** Only who is told a new deadline can become a second owner: everybody else only ceases to be one. */
  #checkOwner(node: SimNode): void {
    if (!node.forwards || node.robbedAt !== undefined) return;
    const { subnet } = node.forwarding!.lease;
    for (const other of this.#nodes) {
      if (other === node || other.forwarding === undefined || !overlaps4(other.forwarding.lease.subnet, subnet))
        continue;
      if (!other.forwards || other.robbedAt !== undefined) continue;
      const both = `${node.name} (${formatCidr4(subnet)}) and ${other.name} (${subnetKey(other.forwarding.lease)})`;
      this.#violation ??= `two live owners: ${both}`;
    }
  }

  #checkEnd(): void {
    const config = parseNetworkConfig(this.#store.configText);
    const without = this.#nodes.filter(node => !node.forwards || !fitsConfig(config, node.forwarding!.lease));
    const missing = Math.max(0, this.#nodes.length - this.#capacity);
    if (without.length !== missing) {
      const names = without.map(node => `${node.name} (${node.forwarding ? 'fenced or not fitting' : 'no lease'})`);
      throw new Violation(`${names.join(', ')} have no subnet at the end, where ${missing} cannot have one`);
    }
    for (const node of this.#nodes) {
      if (!node.forwards) continue;
      const held = this.#store.leases.get(subnetKey(node.forwarding!.lease))?.lease;
      if (held?.createRevision !== node.forwarding!.lease.createRevision) {
        throw new Violation(`${node.name} forwards for a lease that the registry does not have`);
      }
    }
    const leases = [...this.#store.leases.values()].map(entry => entry.lease);
    for (const node of this.#nodes) {
      if (!node.forwards || node.view === undefined || node.view.revision < 0) continue;
      const expected = node.expectedPeers(leases);
      const { peers } = node.view;
      const wrong = [...expected].filter(([key, revision]) => peers.get(key)?.createRevision !== revision);
      if (wrong.length > 0 || peers.size !== expected.size) {
        throw new Violation(`${node.name} knows ${peers.size} peers of ${expected.size}, wrong: ${wrong.join(' ')}`);
      }
    }
  }
}

const network = { address: 10 * 2 ** 24, prefixLength: 11 };
