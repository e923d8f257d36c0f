/**
 * The plugin as the node's daemon runs it: ADD makes an attachment (add.ts), everything else looks at it or removes it by
 * its record (removal.ts, garbage.ts, check.ts).
 */
import { readdirSync } from 'node:fs';
import { codeOf, messageOf } from '../util/errors.ts';
import { addAttachment, settingsFor } from './add.ts';
import { checkAttachment } from './check.ts';
import { NodeContext, type NodePluginOptions, ruleRequestOf } from './context.ts';
import { runDelegate } from './delegate.ts';
import { collectGarbage } from './garbage.ts';
import { ExhaustedError } from './ipam/reserve.ts';
import { CNI_ERROR, CniError, type CniPlugin, type CniRequest, type CniResult } from './plugin.ts';
import { ownIps } from './previous.ts';
import { isAtLeast } from './protocol/names.ts';
import { Problems, removeAttachment, removeUnrecorded } from './removal.ts';
import { isDelegated, type Settings } from './settings.ts';

export type { NodePluginOptions } from './context.ts';
export type { HostRules, RuleKey, RuleRequest } from './host-rules.ts';
export type { NodeNetwork } from './settings.ts';

export interface NodePlugin extends CniPlugin {
  /** Opens all records in dataDir and removes what a crash or a reboot left. Problems are logged. */
  start(): Promise<void>;
  /** Lets go of records and sockets. Attachments stay. */
  close(): void;
}

export function createNodePlugin(options: NodePluginOptions): NodePlugin {
  return new Plugin(options);
}

class Plugin implements NodePlugin {
  readonly #context: NodeContext;

  constructor(options: NodePluginOptions) {
    this.#context = new NodeContext(options);
  }

  async start(): Promise<void> {
    const { dataDir, log } = this.#context.options;
    for (const network of networksIn(dataDir)) {
      try {
        const store = await this.#context.store(network, dataDir);
        await this.#context.sweep(store);
      } catch (error) {
        log.warn({ network, error: messageOf(error) }, 'what is left of earlier attachments could not be looked at');
      }
    }
    this.#context.dropStaleGateways();
  }

  close(): void {
    this.#context.close();
  }

  async add(request: CniRequest): Promise<CniResult> {
    try {
      return await addAttachment(this.#context, request);
    } catch (error) {
      throw asCniError(error);
    }
  }

  // ---- DEL, GC

  async del(request: CniRequest): Promise<void> {
    const store = await this.#context.storeOf(request);
    const { containerId, ifname } = request;
    const record = store.get(request);
    try {
      if (record !== undefined) {
        await removeAttachment(this.#context.remover, store, record);
        this.#context.dropStaleGateways();
        return;
      }
      await this.#removeUnrecorded(request, store.network);
    } catch (error) {
      this.#context.options.log.warn(
        { container: containerId, ifname, error: messageOf(error) },
        'a DEL left something',
      );
      throw asCniError(error);
    }
  }

  /** Never added, removed already, or its record was lost: whatever could be there goes. */
  async #removeUnrecorded(request: CniRequest, network: string): Promise<void> {
    const { containerId, ifname, netns, config } = request;
    const key = { network, containerId, ifname };
    const problems = new Problems();
    // An ADD of this network was refused, because another one's interface has the name: that one stays.
    const isTaken = this.#context
      .attachments()
      .some(other => other.containerId === containerId && other.ifname === ifname);
    await problems.collect(() => removeUnrecorded(this.#context.host, key, isTaken ? '' : netns));
    await problems.collect(() => this.#context.options.rules.detach(key));
    const { ipam } = config;
    if (ipam !== undefined && isDelegated(config)) {
      await problems.collect(() => runDelegate(this.#context.delegateCall(request, ipam.type, request.raw)));
    }
    problems.throwAny(`${containerId} ${ifname}`);
  }

  async gc(request: CniRequest): Promise<void> {
    const store = await this.#context.storeOf(request);
    const problems = new Problems();
    const valid = request.validAttachments;
    await problems.collect(() =>
      collectGarbage(this.#context.remover, store, {
        boot: this.#context.boot,
        isBusy: record => this.#context.busy.has(record),
        ...(valid !== undefined && { valid }),
      }),
    );
    this.#context.dropStaleGateways();
    const { ipam } = request.config;
    if (ipam !== undefined && isDelegated(request.config) && isAtLeast(request.config.cniVersion, '1.1.0')) {
      await problems.collect(() => runDelegate(this.#context.delegateCall(request, ipam.type, request.raw)));
    }
    problems.throwAny('garbage');
  }

  // ---- CHECK, STATUS

  async check(request: CniRequest): Promise<void> {
    const settings = settingsFor(this.#context, request);
    const store = await this.#context.storeOf(request);
    const record = store.get(request);
    checkAttachment(this.#context.host, request, settings, record);
    // Unasked, it is what this attachment was made with that counts: the lease may say something else by now.
    if (settings.masqueradeAsked || (settings.masquerade && record?.rules)) await this.#checkRules(request, settings);
    const { addressing } = settings;
    if (addressing.kind === 'delegated') {
      await runDelegate(this.#context.delegateCall(request, addressing.type, addressing.config));
    }
  }

  async #checkRules(request: CniRequest, settings: Settings): Promise<void> {
    const ips = request.prevResult === undefined ? [] : ownIps(request.prevResult, request.ifname);
    const addresses = ips.map(ip => ip.address);
    try {
      await this.#context.options.rules.check(ruleRequestOf(request, settings, addresses));
    } catch (error) {
      // A pod that did not ask was attached without.
      if (settings.masqueradeAsked || codeOf(error) !== 'no-rules') throw error;
    }
  }

  async status(request: CniRequest): Promise<void> {
    try {
      const { addressing } = settingsFor(this.#context, request);
      const store = await this.#context.storeOf(request);
      this.#context.host.link('lo');
      if (addressing.kind === 'delegated') {
        await runDelegate(this.#context.delegateCall(request, addressing.type, addressing.config));
      }
      if (addressing.kind !== 'built-in') return;
      const full = (): number => addressing.sets.findIndex((set, i) => store.pool(set, i).free <= 0n);
      if (full() >= 0) await this.#context.sweep(store);
      if (full() >= 0) throw new ExhaustedError(addressing.sets[full()], full());
    } catch (error) {
      if (
        error instanceof CniError &&
        [CNI_ERROR.unavailable, CNI_ERROR.limited].some(code => code === error.cniCode)
      ) {
        throw error;
      }
      throw new CniError(CNI_ERROR.unavailable, messageOf(error), { cause: error });
    }
  }
}

function networksIn(dataDir: string): string[] {
  try {
    return readdirSync(dataDir, { withFileTypes: true }).flatMap(entry => (entry.isDirectory() ? [entry.name] : []));
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

function asCniError(error: unknown): CniError {
  if (error instanceof CniError) return error;
  if (error instanceof DOMException && error.name === 'AbortError') {
    return new CniError(CNI_ERROR.tryLater, 'the caller went away: everything was undone', { cause: error });
  }
  return new CniError(CNI_ERROR.internal, messageOf(error), { cause: error });
}
