/** The daemon as the server of the CNI plugin: pods get addresses of this node's lease. */
import { createHash } from 'node:crypto';
import type { OnCallDone } from '../cni/dispatch.ts';
import type { HostRules as AttachmentRules, RuleKey } from '../cni/host-rules.ts';
import { createNodePlugin } from '../cni/node-plugin.ts';
import { startCniServer } from '../cni/server.ts';
import type { NodeNetwork } from '../cni/settings.ts';
import { type HostRules, openHostRules } from '../host/rules.ts';
import type { NetworkConfig } from '../lease/config.ts';
import type { Lease } from '../lease/lease.ts';
import { TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { flagTable } from './flags.ts';

export interface CniOptions {
  socket: string;
  /** Where it is kept which pod has which address. */
  dataDir: string;
  /** What a configuration without subnets gets them from; undefined where this node has no lease. */
  node: () => NodeNetwork | undefined;
  log: Logger;
  /** Called after each call. */
  onDone: OnCallDone;
}

export interface CniService {
  /** Calls at this moment. */
  load(): { running: number; waiting: number };
  close(): Promise<void>;
}

/** The real one, for DaemonParts. @throws TulleError 'cni-socket' or 'cni-socket-taken' */
export async function startCni({ socket, dataDir, node, log, onDone }: CniOptions): Promise<CniService> {
  let rules: HostRules | undefined;
  const plugin = createNodePlugin({ node, dataDir, rules: attachmentRules(() => rules), log });
  const closeRules = async (): Promise<void> => {
    await rules?.close();
  };
  try {
    const server = await startCniServer({
      socket,
      plugin,
      log,
      onDone,
      // Not before the socket is ours: the rules of a name belong to one daemon.
      prepare: async () => {
        rules = await openHostRules({ name: rulesName(socket), log });
      },
    });
    return {
      load: () => server.load(),
      close: async () => {
        await server.close();
        await closeRules();
      },
    };
  } catch (error) {
    await closeRules();
    throw error;
  }
}

/** Tells the rules of the daemons of one machine apart, by their sockets. */
function rulesName(socket: string): string {
  return socket === flagTable['cni-socket'].default ? 'cni' : `cni-${digest(socket, 12)}`;
}

const digest = (text: string, length: number): string =>
  createHash('sha256').update(text).digest('hex').slice(0, length);

/** The attachments' side of the host's rules. */
function attachmentRules(rules: () => HostRules | undefined): AttachmentRules {
  const opened = (): HostRules => {
    const found = rules();
    if (found === undefined) throw new TulleError('no-rules', 'the rules of the host are not open yet');
    return found;
  };
  return {
    attach: ({ addresses, except, ...key }) =>
      opened().ensureMasquerade({ id: ruleId(key), addresses, exceptNetworks: except }),
    detach: key => opened().removeMasquerade(ruleId(key)),
    check: async key => {
      const { tool, degraded } = opened().state();
      if (degraded !== undefined)
        throw new TulleError('no-rules', `masquerading with ${tool} does not work: ${degraded}`);
      if (await opened().stands(ruleId(key))) return;
      throw new TulleError('rules', `the rule that masquerades ${ruleId(key)} is missing`);
    },
  };
}

/** Of what may be in a rule's comment; a container's id may be longer than that. */
function ruleId({ network, containerId, ifname }: RuleKey): string {
  const id = `${network}/${containerId}/${ifname}`;
  return encodeURIComponent(id).length <= 180 ? id : `${digest(`${network}/${containerId}`, 64)}/${digest(ifname, 16)}`;
}

/** What pods may know of the lease. `masquerade`: the daemon does it for all of them. */
export function nodeNetwork(
  { network, network6 }: NetworkConfig,
  lease: Lease,
  mtu: number,
  masquerade: boolean,
): NodeNetwork {
  return {
    subnet: lease.subnet,
    network,
    ...(lease.subnet6 !== undefined && { subnet6: lease.subnet6 }),
    ...(network6 !== undefined && { network6 }),
    mtu,
    masquerade,
  };
}
