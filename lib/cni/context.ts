/** What the parts of the plugin share: the host's netlink socket, the open records, how another plugin is called. */
import { readFileSync } from 'node:fs';
import { LinkRemover } from '../netlink/link-removal.ts';
import { openRtnetlink, type Rtnetlink } from '../netlink/netlink.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { DelegateCall } from './delegate.ts';
import { collectGarbage } from './garbage.ts';
import { dropStaleGateways, type GatewayPlace } from './gateways.ts';
import type { HostRules, RuleRequest } from './host-rules.ts';
import type { CniRequest } from './plugin.ts';
import { type Remover, removeAttachment } from './removal.ts';
import { type NodeNetwork, type Settings, subnetsOf } from './settings.ts';
import { type AttachmentRecord, AttachmentStore } from './store.ts';

export interface NodePluginOptions {
  /** What this node's lease says now; undefined while there is none. */
  node: () => NodeNetwork | undefined;
  /** Where the records are, a folder a network; a configuration's ipam.dataDir takes its place. */
  dataDir: string;
  rules: HostRules;
  log: Logger;
  /** Path of the host's namespace, where bridges are; default: this process's own. */
  namespace?: string;
  /** The kernel's boot_id; tests give another. */
  boot?: string;
}

export class NodeContext {
  readonly options: NodePluginOptions;
  readonly boot: string;
  /** Records of ADDs in progress: nobody tidies them up. */
  readonly busy = new Set<AttachmentRecord>();
  /** Bridges whose MAC address was pinned by this process, with their indexes: one that is made again has another. */
  readonly pinned = new Map<string, number>();
  /** Why bridges do not pass the packet filter, as it was said last. */
  unfiltered: string | undefined;
  readonly #stores = new Map<string, Promise<AttachmentStore>>();
  readonly #open = new Set<AttachmentStore>();
  #netlink: Rtnetlink | undefined;
  #links: LinkRemover | undefined;

  constructor(options: NodePluginOptions) {
    this.options = options;
    this.boot = options.boot ?? readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  }

  get host(): Rtnetlink {
    this.#netlink ??= openRtnetlink(this.options.namespace);
    return this.#netlink;
  }

  get remover(): Remover {
    const { rules, namespace } = this.options;
    this.#links ??= new LinkRemover(this.host, namespace);
    return { netlink: this.host, links: this.#links, rules, namespace };
  }

  storeOf({ config }: CniRequest): Promise<AttachmentStore> {
    return this.store(config.name, config.ipam?.dataDir ?? this.options.dataDir);
  }

  /** Opened once; what a killed process left half made is removed before anybody gets it. */
  store(network: string, directory: string): Promise<AttachmentStore> {
    const name = `${directory}/${network}`;
    let opening = this.#stores.get(name);
    if (opening === undefined) {
      opening = this.#openStore(network, directory);
      this.#stores.set(name, opening);
      opening.catch(() => this.#stores.delete(name)); // the next call tries again
    }
    return opening;
  }

  /** Attachments of all networks that are open. */
  attachments(): AttachmentRecord[] {
    return [...this.#open].flatMap(store => store.list());
  }

  get gatewayPlace(): GatewayPlace {
    return { netlink: this.host, stores: this.#open, boot: this.boot };
  }

  /** What earlier leases left on bridges, after pods have gone. Nothing is known of them where there is no lease. */
  dropStaleGateways(): void {
    const node = this.options.node();
    if (node === undefined) return;
    try {
      dropStaleGateways(this.gatewayPlace, subnetsOf(node));
    } catch (error) {
      this.options.log.warn({ error: messageOf(error) }, "an earlier lease's gateway could not be removed");
    }
  }

  async #openStore(network: string, directory: string): Promise<AttachmentStore> {
    const { log } = this.options;
    const store = AttachmentStore.open(directory, network, log);
    this.#open.add(store);
    for (const record of store.unfinished()) {
      log.info({ network, container: record.containerId }, 'removing what a killed ADD left');
      try {
        await removeAttachment(this.remover, store, record);
      } catch (error) {
        log.warn({ network, container: record.containerId, error: messageOf(error) }, 'not removed');
      }
    }
    return store;
  }

  /** Removes what died without a DEL. True when anything was removed. */
  async sweep(store: AttachmentStore): Promise<boolean> {
    const before = store.list().length;
    try {
      await collectGarbage(this.remover, store, { boot: this.boot, isBusy: record => this.busy.has(record) });
    } catch (error) {
      this.options.log.warn({ network: store.network, error: messageOf(error) }, 'a sweep left something');
    }
    return store.list().length < before;
  }

  delegateCall(request: CniRequest, type: string, config: DelegateCall['config']): DelegateCall {
    const { command, containerId, ifname, netns, argsText, path, signal } = request;
    const { namespace } = this.options;
    const call = { command, type, containerId, ifname, netns, argsText, path, config, signal };
    return namespace === undefined ? call : { ...call, namespace };
  }

  close(): void {
    for (const store of this.#open) store.close();
    this.#open.clear();
    this.#stores.clear();
    this.#links?.close();
    this.#links = undefined;
    this.#netlink?.close();
    this.#netlink = undefined;
  }
}

/** @param addresses of the pod, with or without a prefix length */
export function ruleRequestOf(request: CniRequest, settings: Settings, addresses: readonly string[]): RuleRequest {
  const { config, podNetworks } = settings;
  return {
    network: config.name,
    containerId: request.containerId,
    ifname: request.ifname,
    addresses: addresses.map(address => address.split('/')[0]),
    except: podNetworks,
    ...(config.ipMasqBackend !== undefined && { backend: config.ipMasqBackend }),
  };
}
