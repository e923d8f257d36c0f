/**
 * Rules in the machine's packet filter: the traffic rules of a node (startTrafficRules) and the masquerade of single
 * attachments (openHostRules). Every rule is ours alone, can be told by its table or chain, and can be removed.
 */
import { TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { type Entry, type EntryStore, entriesOf, keyOf, type MasqueradeRequest, sameEntry } from './rules/entry.ts';
import { Keeper } from './rules/keeper.ts';
import { IptablesEntries } from './rules/masquerade-iptables.ts';
import { NftEntries } from './rules/masquerade-nft.ts';
import type { Surface } from './rules/surface.ts';
import { findRuleTools, type RuleTools } from './rules/tools.ts';

export type { MasqueradeRequest } from './rules/entry.ts';
export {
  startTrafficRules,
  type TrafficOptions,
  type TrafficRules,
  type TrafficState,
} from './rules/traffic.ts';

/** The masquerade of attachments. Calls may overlap; they are done one after the other. */
export interface HostRules {
  /**
   * What the addresses send to the outside gets this node's address. Idempotent; what the id had before and does not ask
   * for now is removed. An address that another id had is taken over: there it was left behind.
   * @throws TulleError 'bad-masquerade', 'no-rules' (neither nft nor iptables works here), 'rules-tool'
   */
  ensureMasquerade(attachment: MasqueradeRequest): Promise<void>;
  /** Succeeds when there is nothing to remove. */
  removeMasquerade(id: string): Promise<void>;
  /** Whether the id has rules and they stand, with all that they need, by a look at the packet filter. */
  stands(id: string): Promise<boolean>;
  /** The ids that have rules, also those that an earlier process made. */
  list(): string[];
  /** The tool in use, and what is wrong, if anything is. */
  state(): HostRulesState;
  /** The rules stay; tables and chains without an attachment go. */
  close(): Promise<void>;
}

export interface HostRulesState {
  tool: 'nftables' | 'iptables' | 'none';
  degraded?: string;
}

export interface HostRulesOptions {
  /**
   * Tells the tables of two daemons on one machine apart: 'tulle-' and this is the table of nftables. 1 to 18 of letters,
   * digits, "." and "-". Default 'cni'.
   */
  name?: string;
  /** Default true: masquerade from random ports. */
  randomFully?: boolean;
  /** Default 5: how often the rules are looked at. */
  resyncSeconds?: number;
  log: Logger;
  /** path; none is the calling thread's own */
  namespace?: string;
  /** folders with nft and iptables; for tests */
  path?: readonly string[];
}

const FAMILIES = [4, 6] as const;

/** Reads what is there; writes nothing before the first attachment asks. Works, with nothing to give, where no tool is. */
export async function openHostRules(options: HostRulesOptions): Promise<HostRules> {
  const { name = 'cni' } = options;
  if (!/^[A-Za-z0-9.-]{1,18}$/.test(name)) throw new TulleError('bad-name', `"${name}" cannot name a table of rules`);
  const rules = new Masquerade(options);
  for (const family of FAMILIES) await rules.open(family, await findRuleTools({ ...options, family }), name);
  await rules.start();
  return rules;
}

class Masquerade implements HostRules {
  readonly #options: HostRulesOptions;
  readonly #stores = new Map<4 | 6, EntryStore>();
  readonly #entries = new Map<string, Entry>();
  readonly #tools: RuleTools[] = [];
  #tool: HostRulesState['tool'] = 'none';
  #keeper: Keeper | undefined;
  /** The call that is going on. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: HostRulesOptions) {
    this.#options = options;
  }

  async open(family: 4 | 6, tools: RuleTools, name: string): Promise<void> {
    this.#tools.push(tools);
    const { randomFully = true, namespace } = this.#options;
    const common = { family, randomFully, ...(namespace !== undefined && { namespace }) };
    const { nft, nfTables, iptables } = tools;
    let store: EntryStore | undefined;
    if (nft !== undefined && nfTables !== undefined)
      store = new NftEntries({ ...common, nft, nfTables, table: `tulle-${name}` });
    else if (iptables.length > 0)
      store = new IptablesEntries({ ...common, tool: iptables[0], chain: `TULLE-POD-${name}` });
    if (store === undefined) return;
    this.#stores.set(family, store);
    this.#tool = nft !== undefined ? 'nftables' : 'iptables';
    for (const entry of await store.load()) this.#entries.set(keyOf(entry), entry);
  }

  async start(): Promise<void> {
    const { log, namespace, resyncSeconds: seconds = 5 } = this.#options;
    const surfaces = [...this.#stores].map(([family, store]) => this.#surface(family, store));
    this.#keeper = new Keeper({ surfaces, seconds, log, ...(namespace !== undefined && { namespace }) });
    await this.#keeper.start();
  }

  /** The keeper's view of one family; it waits its turn like every other call. */
  #surface(family: 4 | 6, store: EntryStore): Surface {
    const own = (): Entry[] => [...this.#entries.values()].filter(entry => entry.family === family);
    return {
      name: store.name,
      ensure: () => this.#inTurn(() => store.rebuild(own())),
      intact: () => this.#inTurn(() => store.intact(own())),
      remove: async () => false,
    };
  }

  ensureMasquerade(attachment: MasqueradeRequest): Promise<void> {
    return this.#inTurn(async () => {
      const wanted = entriesOf(attachment);
      for (const { family } of wanted) {
        if (!this.#stores.has(family)) throw new TulleError('no-rules', noTool(family));
      }
      await this.#replace(
        [...this.#entries.values()].filter(({ id }) => id === attachment.id),
        wanted,
      );
    });
  }

  removeMasquerade(id: string): Promise<void> {
    return this.#inTurn(() =>
      this.#replace(
        [...this.#entries.values()].filter(entry => entry.id === id),
        [],
      ),
    );
  }

  stands(id: string): Promise<boolean> {
    return this.#inTurn(async () => {
      const all = [...this.#entries.values()];
      const families = new Set(all.filter(entry => entry.id === id).map(entry => entry.family));
      for (const family of families) {
        const store = this.#stores.get(family);
        if (!(await store?.intact(all.filter(entry => entry.family === family)))) return false;
      }
      return families.size > 0;
    });
  }

  list(): string[] {
    return [...new Set([...this.#entries.values()].map(entry => entry.id))];
  }

  state(): HostRulesState {
    const missing = FAMILIES.find(family => !this.#stores.has(family));
    const degraded = this.#keeper?.failure ?? (missing === 4 ? noTool(4) : undefined);
    return { tool: this.#tool, ...(degraded !== undefined && { degraded }) };
  }

  async close(): Promise<void> {
    await this.#keeper?.stop();
    await this.#inTurn(async () => {
      for (const [family, store] of this.#stores) {
        if (![...this.#entries.values()].some(entry => entry.family === family)) await store.destroy();
      }
    }).finally(() => {
      for (const { nfTables } of this.#tools) nfTables?.close();
    });
  }

  /** From `had` to `wanted`, family by family. If the second fails, the first is put back. */
  async #replace(had: readonly Entry[], wanted: readonly Entry[]): Promise<void> {
    const done: { store: EntryStore; remove: Entry[]; add: Entry[] }[] = [];
    try {
      for (const [family, store] of this.#stores) {
        const add = wanted.filter(entry => entry.family === family && !this.#stands(entry));
        const inTheWay = add.flatMap(entry => this.#entries.get(keyOf(entry)) ?? []);
        const dropped = had.filter(old => old.family === family && !wanted.some(entry => keyOf(entry) === keyOf(old)));
        const remove = [...new Set([...inTheWay, ...dropped])];
        if (remove.length + add.length === 0) continue;
        await this.#apply(store, family, remove, add);
        done.push({ store, remove, add });
      }
    } catch (error) {
      for (const { store, remove, add } of done) await store.apply(add, remove).catch(() => {});
      throw error;
    }
    for (const { remove, add } of done) {
      for (const entry of remove) this.#entries.delete(keyOf(entry));
      for (const entry of add) this.#entries.set(keyOf(entry), entry);
    }
  }

  #stands(entry: Entry): boolean {
    const found = this.#entries.get(keyOf(entry));
    return found !== undefined && sameEntry(found, entry);
  }

  async #apply(store: EntryStore, family: 4 | 6, remove: Entry[], add: Entry[]): Promise<void> {
    try {
      await store.apply(remove, add);
    } catch (error) {
      // Somebody flushed it since the last look: then what is there must be made first, and again if that is not it.
      const now = [...this.#entries.values()].filter(entry => entry.family === family);
      if (await store.intact(now).catch(() => true)) throw error;
      const after = now.filter(entry => !remove.includes(entry));
      await store.rebuild([...after, ...add]);
    }
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action);
    this.#last = result.catch(() => {});
    return result;
  }
}

const noTool = (family: 4 | 6): string =>
  `neither nft nor ${family === 4 ? 'iptables' : 'ip6tables'} works here: install nftables, or set ipMasq to false`;
