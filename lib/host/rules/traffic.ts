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
import { formatCidr4, type Subnet4 } from '../../wire/cidr.ts';
import { IptablesChain } from './iptables.ts';
import { Keeper } from './keeper.ts';
import { NftTable } from './nft.ts';
import type { Surface } from './surface.ts';
import { chainName, iptablesForward, iptablesMasquerade, nftScript, nftTableName, type TrafficPlan } from './text.ts';
import { findRuleTools, type IptablesTool, isIptablesForward, type RuleTools } from './tools.ts';

export interface TrafficOptions {
  network: Subnet4;
  /** This node's. */
  subnet: Subnet4;
  masquerade: boolean;
  /** Accept what is forwarded from and to the network. */
  forward: boolean;
  randomFully: boolean;
  /** How often everything is looked at, whatever the news. */
  resyncSeconds: number;
  /** The net-conf's EnableNFTables: nftables were asked for, so that iptables in their place is worth a warning. */
  expectNftables: boolean;
  /** Networks that an earlier run of this daemon had: their rules go. */
  formerNetworks?: readonly Subnet4[];
  log: Logger;
  /** path; none is the calling thread's own */
  namespace?: string;
  /** folders with nft and iptables; for tests */
  path?: readonly string[];
}

export interface TrafficState {
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

const NO_TOOL = 'neither nft nor iptables works here, so nothing is masqueraded: install nftables, or iptables';

/** Never throws for want of tools or permission: the node works without the rules, and says what it lacks. */
export async function startTrafficRules(options: TrafficOptions): Promise<TrafficRules> {
  const { log, namespace } = options;
  const tools = await findRuleTools({ ...options, family: 4 });
  const maker = new Maker(options, tools);
  const { surfaces, masquerade } = await choose(options, tools, maker);
  await removeLeftovers(options, maker, surfaces);

  const forward = !options.forward ? 'off' : tools.iptables.length > 0 ? 'iptables' : 'unneeded';
  const unmet = masquerade === 'none' ? NO_TOOL : undefined;
  if (unmet !== undefined) log.warn({}, unmet);
  if (options.forward) warnOfDrops(tools, log);

  const { resyncSeconds: seconds } = options;
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
        tools.nfTables?.close();
      }
    },
  };
}

/** Builds surfaces from the tools that there are. */
class Maker {
  readonly #options: TrafficOptions;
  readonly #tools: RuleTools;

  constructor(options: TrafficOptions, tools: RuleTools) {
    this.#options = options;
    this.#tools = tools;
  }

  #plan(network: Subnet4): TrafficPlan {
    const { subnet, randomFully } = this.#options;
    return { network, subnet, randomFully };
  }

  #place() {
    const { namespace } = this.#options;
    const { nfTables } = this.#tools;
    return { ...(namespace !== undefined && { namespace }), ...(nfTables !== undefined && { nfTables }) };
  }

  nft(network: Subnet4): NftTable | undefined {
    const { nft, nfTables } = this.#tools;
    if (nft === undefined || nfTables === undefined) return undefined;
    const script = nftScript(this.#plan(network));
    return new NftTable({ ...this.#place(), nft, nfTables, table: nftTableName(network), script });
  }

  nat(network: Subnet4, tool: IptablesTool): IptablesChain {
    const rules = iptablesMasquerade(this.#plan(network));
    const chain = chainName('NAT', network);
    return new IptablesChain({
      ...this.#place(),
      tool,
      table: 'nat',
      from: 'POSTROUTING',
      chain,
      comment: 'tulle masquerade',
      rules,
    });
  }

  filter(network: Subnet4, tool: IptablesTool): IptablesChain {
    const rules = iptablesForward({ network });
    const chain = chainName('FWD', network);
    return new IptablesChain({
      ...this.#place(),
      tool,
      table: 'filter',
      from: 'FORWARD',
      chain,
      comment: 'tulle forward',
      rules,
    });
  }

  /** Whatever rules for this network may be on this machine. */
  all(network: Subnet4): Surface[] {
    const nft = this.nft(network);
    const chains = this.#tools.iptables.flatMap(tool => [this.nat(network, tool), this.filter(network, tool)]);
    return [...(nft === undefined ? [] : [nft]), ...chains];
  }
}

async function choose(
  options: TrafficOptions,
  tools: RuleTools,
  maker: Maker,
): Promise<{ surfaces: Surface[]; masquerade: TrafficState['masquerade'] }> {
  const { network, log, expectNftables } = options;
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
async function removeLeftovers(options: TrafficOptions, maker: Maker, wanted: readonly Surface[]): Promise<void> {
  const { network, formerNetworks = [], log } = options;
  const former = formerNetworks.filter(other => formatCidr4(other) !== formatCidr4(network));
  const names = new Set(wanted.map(surface => surface.name));
  const stale = [network, ...former].flatMap(each => maker.all(each)).filter(surface => !names.has(surface.name));
  for (const surface of stale) {
    try {
      if (await surface.remove()) log.info({ rules: surface.name }, 'traffic rules of an earlier run removed');
    } catch (error) {
      log.warn({ rules: surface.name, error: messageOf(error) }, 'traffic rules of an earlier run are still there');
    }
  }
}

/** Another program's nftables chain with a policy of drop: nothing that we could write overrules it. */
function warnOfDrops({ nfTables, iptables }: RuleTools, log: Logger): void {
  const ours = iptables.some(tool => tool.flavour === 'nf_tables');
  const chains = nfTables?.baseChains() ?? [];
  for (const chain of chains) {
    const { family, table, name, hook, policy } = chain;
    if (hook !== HOOK_FORWARD || policy !== 'drop' || !['ip', 'inet'].includes(family)) continue;
    if (ours && isIptablesForward(chain, 4)) continue;
    log.warn(
      { chain: `${family} ${table} ${name}` },
      'this nftables chain drops what is forwarded: accept the pod network there',
    );
  }
}
