/**
 * The rules of one node for its pod network: what leaves the network is masqueraded, what is forwarded for it is accepted.
 *
 * Masquerading is written with nft where that works, else with iptables. Accepting is always iptables' matter: an accept
 * in a table of our own does not overrule a drop in another table, and the drop that there is to overrule on a machine
 * with docker is the policy of iptables' FORWARD. Where no iptables is installed nothing need be written.
 * docs/decisions/ has the reasons.
 */
import { HOOK_FORWARD } from '../../netlink/nftables.ts';
import { messageOf } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { IptablesChain } from './iptables.ts';
import { Keeper } from './keeper.ts';
import { NftTable } from './nft.ts';
import type { Surface } from './surface.ts';
import { chainName, iptablesForward, iptablesMasquerade, nftFamily, nftScript, nftTableName } from './text.ts';
import { findRuleTools, type IptablesTool, isIptablesForward, type RuleTools } from './tools.ts';

export interface TrafficOptions {
  /** The pod network and this node's part of it, one of each family that is in use: CIDRs without host bits. */
  ranges: readonly { family: 4 | 6; network: string; subnet: string }[];
  masquerade: boolean;
  /** Accept what is forwarded from and to the network. */
  forward: boolean;
  randomFully: boolean;
  /** How often everything is looked at, whatever the news. */
  resyncSeconds: number;
  /** The net-conf's EnableNFTables: nftables were asked for, so that iptables in their place is worth a warning. */
  expectNftables: boolean;
  /** Networks that an earlier run of this daemon had, CIDRs of both families: their rules go. */
  formerNetworks?: readonly string[];
  log: Logger;
  /** path; none is the calling thread's own */
  namespace?: string;
  /** folders with nft and iptables; for tests */
  path?: readonly string[];
}

export interface TrafficState {
  /** Where both families are in use and differ, the lesser: 'none' before 'iptables' before 'nftables'. */
  masquerade: 'off' | 'nftables' | 'iptables' | 'none';
  /** 'unneeded': there is no iptables that could drop. */
  forward: 'off' | 'iptables' | 'unneeded';
  /** One line that says what is missing; absent when all that was asked for stands. */
  degraded?: string;
}

export interface TrafficRules {
  state(): TrafficState;
  /** Ends the keeping. The rules stay, as flannel's do, unless `remove`. */
  stop(options: { remove: boolean }): Promise<void>;
}

type Masquerade = TrafficState['masquerade'];
/** The lesser goes before. */
const MASQUERADES: readonly Masquerade[] = ['none', 'iptables', 'nftables', 'off'];

/** Never throws for want of tools or permission: the node works without the rules, and says what it lacks. */
export async function startTrafficRules(options: TrafficOptions): Promise<TrafficRules> {
  const { log, namespace, formerNetworks = [], resyncSeconds: seconds } = options;
  const former6 = formerNetworks.some(network => familyOf(network) === 6);
  const families = ([4, 6] as const).filter(
    family => options.ranges.some(range => range.family === family) || (family === 6 && former6),
  );
  const prepared: Prepared[] = [];
  for (const family of families) prepared.push(await prepare(options, family));

  const surfaces = prepared.flatMap(each => each.surfaces);
  const used = prepared.flatMap(each => each.masquerade ?? []);
  const masquerade = MASQUERADES.find(each => used.includes(each)) ?? 'off';
  const accepts = surfaces.some(surface => surface instanceof IptablesChain && surface.table === 'filter');
  const forward = !options.forward ? 'off' : accepts ? 'iptables' : 'unneeded';
  const unmet = masquerade === 'none' ? noTool(used.every(each => each === 'none')) : undefined;
  if (unmet !== undefined) log.warn({}, unmet);

  const keeper = new Keeper({ surfaces, seconds, log, ...(namespace !== undefined && { namespace }) });
  await keeper.start();
  log.debug({ masquerade, forward, rules: surfaces.map(surface => surface.name) }, 'traffic rules');
  return {
    state: () => {
      const degraded = unmet ?? keeper.failure;
      return { masquerade, forward, ...(degraded !== undefined && { degraded }) };
    },
    stop: async ({ remove }) => {
      await keeper.stop();
      try {
        if (remove) for (const surface of surfaces) await surface.remove();
      } finally {
        for (const { tools } of prepared) tools.nfTables?.close();
      }
    },
  };
}

const familyOf = (network: string): 4 | 6 => (network.includes(':') ? 6 : 4);

const noTool = (both: boolean): string =>
  both
    ? 'neither nft nor iptables works here, so nothing is masqueraded: install nftables, or iptables'
    : 'neither nft nor ip6tables works here, so IPv6 is not masqueraded: install nftables, or iptables';

interface Prepared {
  tools: RuleTools;
  surfaces: Surface[];
  /** Absent: the family is not in use. */
  masquerade?: Masquerade;
}

/** What one family needs; leftovers are gone. */
async function prepare(options: TrafficOptions, family: 4 | 6): Promise<Prepared> {
  const { log, formerNetworks = [] } = options;
  const tools = await findRuleTools({ ...options, family });
  const maker = new Maker(options, family, tools);
  const range = options.ranges.find(each => each.family === family);
  const chosen = range === undefined ? { surfaces: [] } : await choose(options, tools, maker, range.network);
  const networks = [...formerNetworks, ...(range === undefined ? [] : [range.network])];
  const own = networks.filter(network => familyOf(network) === family);
  await removeLeftovers(maker, [...new Set(own)], chosen.surfaces, log);
  if (options.forward && range !== undefined) warnOfDrops(tools, family, log);
  return { tools, ...chosen };
}

/** Builds surfaces of one family from the tools that there are. */
class Maker {
  readonly #options: TrafficOptions;
  readonly #family: 4 | 6;
  readonly #tools: RuleTools;

  constructor(options: TrafficOptions, family: 4 | 6, tools: RuleTools) {
    this.#options = options;
    this.#family = family;
    this.#tools = tools;
  }

  #plan(network: string) {
    const { ranges, randomFully } = this.#options;
    // A network that is only to be removed has no subnet, and its rules are never written.
    const subnet = ranges.find(range => range.network === network)?.subnet ?? network;
    return { family: this.#family, network, subnet, randomFully };
  }

  #place() {
    const { namespace } = this.#options;
    const { nfTables } = this.#tools;
    return { ...(namespace !== undefined && { namespace }), ...(nfTables !== undefined && { nfTables }) };
  }

  nft(network: string): NftTable | undefined {
    const { nft, nfTables } = this.#tools;
    if (nft === undefined || nfTables === undefined) return undefined;
    const script = nftScript(this.#plan(network));
    const family = nftFamily(this.#family);
    return new NftTable({ ...this.#place(), nft, nfTables, family, table: nftTableName(network), script });
  }

  nat(network: string, tool: IptablesTool): IptablesChain {
    return new IptablesChain({
      ...this.#place(),
      family: this.#family,
      tool,
      table: 'nat',
      from: 'POSTROUTING',
      chain: chainName('NAT', network),
      comment: 'tulle masquerade',
      rules: iptablesMasquerade(this.#plan(network)),
    });
  }

  filter(network: string, tool: IptablesTool): IptablesChain {
    return new IptablesChain({
      ...this.#place(),
      family: this.#family,
      tool,
      table: 'filter',
      from: 'FORWARD',
      chain: chainName('FWD', network),
      comment: 'tulle forward',
      rules: iptablesForward({ network }),
    });
  }

  /** Whatever rules for this network may be on this machine. */
  all(network: string): Surface[] {
    const nft = this.nft(network);
    const chains = this.#tools.iptables.flatMap(tool => [this.nat(network, tool), this.filter(network, tool)]);
    return [...(nft === undefined ? [] : [nft]), ...chains];
  }
}

async function choose(
  options: TrafficOptions,
  tools: RuleTools,
  maker: Maker,
  network: string,
): Promise<{ surfaces: Surface[]; masquerade: Masquerade }> {
  const { log, expectNftables } = options;
  const accept = options.forward ? tools.iptables.map(tool => maker.filter(network, tool)) : [];
  if (!options.masquerade) return { surfaces: accept, masquerade: 'off' };
  const nft = maker.nft(network);
  const [own] = tools.iptables;
  let reason = 'there is no nft, or the kernel has no nf_tables';
  if (nft !== undefined) {
    try {
      await nft.ensure();
      return { surfaces: [nft, ...accept], masquerade: 'nftables' };
    } catch (error) {
      // With nothing to fall back to, the keeper goes on trying.
      if (own === undefined) return { surfaces: [nft, ...accept], masquerade: 'nftables' };
      reason = messageOf(error);
    }
  }
  if (own === undefined) return { surfaces: accept, masquerade: 'none' };
  if (expectNftables || nft !== undefined) log.warn({ reason }, 'nftables are of no use here: iptables masquerades');
  return { surfaces: [maker.nat(network, own), ...accept], masquerade: 'iptables' };
}

/** Rules of an earlier run that do not stand in the plan any more: another network, another tool, a flag taken back. */
async function removeLeftovers(
  maker: Maker,
  networks: readonly string[],
  wanted: readonly Surface[],
  log: Logger,
): Promise<void> {
  const names = new Set(wanted.map(surface => surface.name));
  for (const surface of networks.flatMap(network => maker.all(network))) {
    if (names.has(surface.name)) continue;
    try {
      if (await surface.remove()) log.info({ rules: surface.name }, 'traffic rules of an earlier run removed');
    } catch (error) {
      log.warn({ rules: surface.name, error: messageOf(error) }, 'traffic rules of an earlier run are still there');
    }
  }
}

/** Another program's nftables chain with a policy of drop: nothing that we could write overrules it. */
function warnOfDrops({ nfTables, iptables }: RuleTools, of: 4 | 6, log: Logger): void {
  const ours = iptables.some(tool => tool.flavour === 'nf_tables');
  const chains = nfTables?.baseChains() ?? [];
  for (const chain of chains) {
    const { family, table, name, hook, policy } = chain;
    // A chain of both families is named once, with the first.
    const concerns = family === nftFamily(of) || (family === 'inet' && of === 4);
    if (hook !== HOOK_FORWARD || policy !== 'drop' || !concerns || (ours && isIptablesForward(chain, of))) continue;
    log.warn(
      { chain: `${family} ${table} ${name}` },
      'this nftables chain drops what is forwarded: accept the pod network there',
    );
  }
}
