/**
 * ADD, from the request to the result:
 *
 *   settings → addresses → record (begin) → links, addresses, routes → rules → carrier → record (done) → result
 *
 * Every step that makes something pushes its undo. The record is struck out when the undo has succeeded; if it has not,
 * the record stays, and DEL, GC or the next start remove what it tells of.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { ensureBridgeNetfilter } from '../host/bridge-netfilter.ts';
import { readSubnetEnv } from '../lease/subnet-env.ts';
import { codeOf, messageOf } from '../util/errors.ts';
import { Undo } from '../util/undo.ts';
import { familiesOf, type Plan, type Plug, planAddresses, plug } from './attach.ts';
import { type NodeContext, ruleRequestOf } from './context.ts';
import { addByDelegate, type DelegateCall, findPlugin, runDelegate } from './delegate.ts';
import { isDead } from './garbage.ts';
import { dropStaleGateways, needs } from './gateways.ts';
import { type Choice, chooseAddresses, ExhaustedError } from './ipam/reserve.ts';
import { readResolvConf } from './ipam/resolv-conf.ts';
import { hostLinkName } from './names.ts';
import { CNI_ERROR, type CniDns, CniError, type CniRequest, type CniResult } from './plugin.ts';
import { settle } from './pod-end.ts';
import { appendTo } from './previous.ts';
import { removeAttachment } from './removal.ts';
import { type Settings, settingsOf } from './settings.ts';
import type { AttachmentRecord, AttachmentStore, Gateway } from './store.ts';

/** A link's carrier comes within milliseconds; the reference waits up to 2.5 s. */
const CARRIER_MS = 2500;

export const settingsFor = (context: NodeContext, request: CniRequest): Settings =>
  settingsOf(request, { node: context.options.node, readSubnetFile: readSubnetEnv });

/** @throws CniError and what links and rules throw; nothing is left then, or what is left is on record */
export async function addAttachment(context: NodeContext, request: CniRequest): Promise<CniResult> {
  const settings = settingsFor(context, request);
  const { addressing } = settings;
  if (addressing.kind === 'delegated') findPlugin(addressing.type, request.path);
  const store = await context.storeOf(request);
  return new Adding(context).run(request, settings, store);
}

class Adding {
  readonly #context: NodeContext;

  constructor(context: NodeContext) {
    this.#context = context;
  }

  async run(request: CniRequest, settings: Settings, store: AttachmentStore): Promise<CniResult> {
    await this.#makeRoom(store, request);
    return this.#attach(request, settings, store);
  }

  /** The same container and interface again is an error, unless what there was has died without a DEL. */
  async #makeRoom(store: AttachmentStore, request: CniRequest): Promise<void> {
    const record = store.get(request);
    if (record === undefined) return;
    if (this.#context.busy.has(record) || !isDead(this.#context.host, record, this.#context.boot))
      throw duplicate(record);
    await removeAttachment(this.#context.remover, store, record);
  }

  async #attach(request: CniRequest, settings: Settings, store: AttachmentStore): Promise<CniResult> {
    const { choices, record } = await this.#begin(request, settings, store);
    this.#context.busy.add(record);
    const undo = new Undo();
    try {
      const { plan, dns } = await this.#plan(request, settings, choices, undo);
      const plugged = plug(this.#context.host, this.#plug(request, settings, store, record, plan), undo);
      this.#filterBridge(settings, plan);
      await this.#masquerade(request, settings, plan, undo);
      if (settings.config.enabledad && plugged.pod.ips.length > 0) await settle(plugged.pod);
      await this.#waitForCarriers(plugged.carriers, request.signal);
      request.signal.throwIfAborted();
      store.done(record);
      const { interfaces, ips, routes } = plugged;
      const own = { interfaces, ips, routes, dns: hasContent(settings.config.dns) ? settings.config.dns : dns };
      return appendTo(request.prevResult, own);
    } catch (error) {
      const { log } = this.#context.options;
      // The record stays until all that it tells of is gone.
      if (await undo.run(log)) store.end(record);
      else log.warn({ container: request.containerId }, 'a failed ADD left something: DEL or GC removes it');
      throw error;
    } finally {
      this.#context.busy.delete(record);
    }
  }

  /** Full: what died without a DEL is swept away first. */
  async #begin(
    request: CniRequest,
    settings: Settings,
    store: AttachmentStore,
  ): Promise<{ choices: Choice[]; record: AttachmentRecord }> {
    try {
      return this.#reserve(request, settings, store);
    } catch (error) {
      if (!(error instanceof ExhaustedError) || !(await this.#context.sweep(store))) throw error;
      return this.#reserve(request, settings, store);
    }
  }

  /** Synchronous: between the choice of an address and its record nobody else can choose it. */
  #reserve(
    request: CniRequest,
    settings: Settings,
    store: AttachmentStore,
  ): { choices: Choice[]; record: AttachmentRecord } {
    const { addressing, config } = settings;
    const present = store.get(request);
    if (present !== undefined) throw duplicate(present);
    const choices = addressing.kind === 'built-in' ? chooseAddresses(store, addressing.sets, config.wanted.ips) : [];
    const record = this.#recordOf(request, settings, choices);
    try {
      store.begin(record);
    } catch (error) {
      for (const choice of choices) store.giveBack(choice);
      throw error;
    }
    return { choices, record };
  }

  #recordOf(request: CniRequest, settings: Settings, choices: readonly Choice[]): AttachmentRecord {
    const { config, addressing } = settings;
    const { containerId, ifname } = request;
    const hostLink = hostLinkName({ network: config.name, containerId, ifname });
    return {
      containerId,
      ifname,
      netns: request.netns,
      boot: this.#context.boot,
      hostLink,
      ips: choices.map(choice => choice.address),
      ...(config.mode === 'bridge' && { bridge: config.bridge }),
      ...(settings.masquerade && { rules: true }),
      ...(addressing.kind === 'delegated' && {
        delegated: {
          type: addressing.type,
          path: request.path,
          argsText: request.argsText,
          config: addressing.config,
        },
      }),
    };
  }

  async #plan(
    request: CniRequest,
    settings: Settings,
    choices: readonly Choice[],
    undo: Undo,
  ): Promise<{ plan: Plan; dns: CniDns }> {
    const { addressing, config } = settings;
    switch (addressing.kind) {
      case 'none':
        return { plan: { ips: [], routes: [] }, dns: {} };
      case 'built-in': {
        const ips = choices.map(({ cidr, gateway }) => ({ address: cidr, gateway }));
        const dns = addressing.resolvConf === undefined ? {} : readResolvConf(addressing.resolvConf);
        return { plan: planAddresses(settings, ips, addressing.routes), dns };
      }
      case 'delegated': {
        const call = this.#context.delegateCall(request, addressing.type, addressing.config);
        // Also when the ADD itself fails: the specification wants a DEL after it.
        undo.push(`the address of ${addressing.type}`, async () => {
          await runDelegate({ ...withoutSignal(call), command: 'DEL' });
        });
        const result = await addByDelegate(call, config.cniVersion);
        if (result.ips.length === 0) {
          throw new CniError(
            CNI_ERROR.internal,
            `${addressing.type} returned no address (IPAM plugin, missing IP config)`,
          );
        }
        return { plan: planAddresses(settings, result.ips, result.routes), dns: result.dns };
      }
    }
  }

  #plug(request: CniRequest, settings: Settings, store: AttachmentStore, record: AttachmentRecord, plan: Plan): Plug {
    const others = (): AttachmentRecord[] => this.#context.attachments().filter(other => other !== record);
    return {
      request,
      settings,
      hostLink: record.hostLink,
      ips: plan.ips,
      routes: plan.routes,
      namespace: this.#context.options.namespace,
      pinned: this.#context.pinned,
      isShared: bridge => others().some(other => other.bridge === bridge),
      gateways: this.#gateways(settings.config.bridge, store, record),
    };
  }

  #gateways(bridge: string, store: AttachmentStore, record: AttachmentRecord): Plug['gateways'] {
    const { host, boot } = this.#context;
    const noted = (cidr: string): Gateway => ({ bridge, cidr, boot });
    return {
      isNeeded: cidr => this.#context.attachments().some(other => other !== record && needs(other, { bridge, cidr })),
      note: cidr => store.noteGateway(noted(cidr)),
      forget: cidr => store.forgetGateway(noted(cidr)),
      dropStale: (current, undo) => {
        const gone: string[] = [];
        dropStaleGateways(this.#context.gatewayPlace, current, record, (gateway, owner) => {
          if (gateway.bridge === bridge) gone.push(gateway.cidr);
          undo.push(`without address ${gateway.cidr} of ${gateway.bridge}`, () => {
            owner.noteGateway(gateway);
            host.addAddress(gateway.bridge, gateway.cidr, { nodad: gateway.cidr.includes(':') });
          });
        });
        return gone;
      },
    };
  }

  /** Never worth the pod: without it all but Services works. What is wrong is said once, for it is the node's. */
  #filterBridge({ config, isGateway }: Settings, plan: Plan): void {
    if (config.mode !== 'bridge' || !isGateway) return;
    const { namespace, log } = this.#context.options;
    try {
      ensureBridgeNetfilter(namespace, familiesOf(plan));
      this.#context.unfiltered = undefined;
    } catch (error) {
      const reason = codeOf(error) === 'ENOENT' ? 'br_netfilter is not loaded' : messageOf(error);
      if (reason === this.#context.unfiltered) return;
      this.#context.unfiltered = reason;
      log.warn(
        { reason, bridge: config.bridge },
        'a Service does not reach the pods of its client\'s own node: "modprobe br_netfilter", or "mode": "ptp" in the CNI configuration',
      );
    }
  }

  async #masquerade(request: CniRequest, settings: Settings, plan: Plan, undo: Undo): Promise<void> {
    if (!settings.masquerade || plan.ips.length === 0) return;
    const rules = ruleRequestOf(
      request,
      settings,
      plan.ips.map(ip => ip.address),
    );
    undo.push('traffic rules', () => this.#context.options.rules.detach(rules));
    try {
      await this.#context.options.rules.attach(rules);
    } catch (error) {
      if (settings.masqueradeAsked) throw error;
      this.#context.options.log.warn(
        { container: request.containerId, error: messageOf(error) },
        'no masquerading for a pod',
      );
    }
  }

  /** A bridge forwards to a port once its carrier is there, which the kernel notices a moment later. */
  async #waitForCarriers(names: readonly string[], signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + CARRIER_MS;
    for (const name of names) {
      for (let pause = 0; this.#context.host.link(name)?.running === false; pause = Math.min(20, pause + 1)) {
        signal.throwIfAborted();
        if (performance.now() > deadline) {
          throw new CniError(CNI_ERROR.tryLater, `${name} has no carrier after ${CARRIER_MS / 1000} s`);
        }
        await delay(pause);
      }
    }
  }
}

function duplicate({ containerId, ifname, ips }: AttachmentRecord): CniError {
  const what = ips.length > 0 ? `${ips.join(', ')} has been allocated to` : 'there is an attachment of';
  return new CniError(
    CNI_ERROR.environment,
    `${what} ${containerId}, duplicate allocation is not allowed: CNI_CONTAINERID ${containerId}, CNI_IFNAME ${ifname}`,
  );
}

function withoutSignal({ signal: _, ...call }: DelegateCall): DelegateCall {
  return call;
}

const hasContent = (dns: CniDns | undefined): dns is CniDns =>
  dns !== undefined && Object.values(dns).some(value => value !== undefined && value.length > 0);
