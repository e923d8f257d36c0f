/**
 * The run sequence of tulled, from nothing to a node of the overlay and back:
 *
 *   registry → health ─┬► net-conf → interface → lease → overlay → first snapshot of the peers → subnet.env → ready
 *                      │  … renewals and changes of peers …  until a signal, or until the lease is lost
 *                      └──◄── the net-conf is another one now: undo down to here, and again (a round)
 *
 * Each step that makes something pushes its undo at once; every way out runs them. Until the overlay stands nothing is
 * logged but what a person must act on, so that a start that fails leaves one line.
 */

import { backendAttributes } from '../backend/backend.ts';
import type { Overlay } from '../backend/overlay.ts';
import type { ChosenInterface } from '../host/interface.ts';
import type { TrafficRules, TrafficState } from '../host/rules.ts';
import { type Lease, printSubnets } from '../lease/lease.ts';
import { type AcquireRequest, LeaseManager } from '../lease/manager.ts';
import type { ControlRoutes } from '../observe/control.ts';
import { measureRegistry } from '../observe/registry-meter.ts';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { Undo } from '../util/undo.ts';
import { formatCidr4, formatCidr6 } from '../wire/cidr.ts';
import { nodeNetwork } from './cni.ts';
import { untilConfigChanges } from './config-watch.ts';
import { follow } from './follow.ts';
import type { Health } from './health.ts';
import { configPlace, type DaemonNetwork, printNetwork, readNetwork } from './network.ts';
import { announce, type Notifier, SILENT } from './notify.ts';
import { openObservation } from './observe.ts';
import type { DaemonOptions } from './options.ts';
import { refuseOthers } from './others.ts';
import type { DaemonParts } from './parts.ts';
import { registryName } from './registry.ts';
import { orStopped, Stopped, untilAvailable } from './retry.ts';
import { type Run, setWaiting } from './run.ts';
import { openCni } from './serve-cni.ts';
import { openSide } from './side.ts';
import { interfaceNeeds, publicAddresses, underlayAddress } from './underlay.ts';

/** A clean stop ends within 5 s (systemd and kubelet wait longer); the rest is for the process itself. */
const UNDO_LIMIT_MS = { round: 2500, rest: 1500 };

/**
 * Runs until `stop` is aborted, which is a clean stop. Everything that was made is gone when it returns or throws,
 * except the lease (unless --release-on-exit) and subnet.env.
 * @throws TulleError: 'lease-lost', or whatever made the start impossible
 */
export async function runDaemon(
  options: DaemonOptions,
  parts: DaemonParts,
  log: Logger,
  stop: AbortSignal,
  notifier: Notifier = SILENT,
): Promise<void> {
  const undo = new Undo();
  try {
    parts.checkMachine();
    const observed = await openObservation({ options, parts, log, undo });
    const opened = await parts.openRegistry(options.registry, log, options.subnetFile);
    const registry = measureRegistry(opened, observed.meters.registry);
    observed.registry = registry;
    undo.push('the connection to the registry', () => registry.close());
    const journal = parts.openJournal(options.journalFile, log);
    undo.push('the journal', () => journal.stop());
    const health = announce(await openHealth(options, parts, undo, observed.routes), notifier);
    for (let round = 1; ; round++) {
      if (round > 1) notifier.reloading();
      await runRound({ options, parts, log, stop, registry, journal, health, observed, round });
    }
  } catch (error) {
    if (!stop.aborted) throw error;
    // Whatever broke while we were being stopped is part of stopping.
    if (!(error instanceof Stopped)) log.debug({ error }, 'stopped in the middle of a step');
  } finally {
    notifier.stopping();
    const clean = await undo.run(log, UNDO_LIMIT_MS.rest);
    if (stop.aborted) log.info({ clean }, 'stopped');
  }
}

/** From the net-conf to ready, and until it changes; everything that was made is undone when this returns or throws. */
async function runRound(
  given: Pick<Run, 'options' | 'parts' | 'log' | 'stop' | 'registry' | 'journal' | 'health' | 'observed' | 'round'>,
) {
  const { parts, log, registry, observed, round } = given;
  const { clock, random } = parts;
  const undo = new Undo();
  const onDeadline = (monotonicMs: number): void => run.overlay?.setDeadline(monotonicMs);
  const manager = new LeaseManager({ registry, clock, random, log, onDeadline });
  const run: Run = { ...given, undo, manager, overlay: undefined, giveBack: false, started: false, fenced: false };
  observed.manager = manager;
  try {
    await bringUp(run);
  } catch (error) {
    // The node had a subnet and cannot have one now: a supervisor's restart may help, a person certainly.
    if (round === 1 || codeOf(error) !== 'out-of-subnets') throw error;
    throw new TulleError('lease-lost', `after the network configuration changed: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    Object.assign(observed, {
      manager: undefined,
      overlay: undefined,
      peers: undefined,
      probes: undefined,
      messages: undefined,
      tracing: undefined,
      rules: undefined,
      cni: undefined,
    });
    await undo.run(log, UNDO_LIMIT_MS.round);
  }
}

async function bringUp(run: Run): Promise<void> {
  const { options, parts, log, stop, observed } = run;
  setWaiting(run, 'the network configuration');
  const network = await fetchNetwork(run);
  observed.network = network;
  const underlay = parts.chooseInterface({ ...options.interface, ...interfaceNeeds(network) });
  log.debug({ ...underlay }, 'interface chosen');

  refuseOthers(run, network);
  setWaiting(run, 'a lease');
  const request = leaseRequest(run, network, underlay);
  observed.nodeId = request.nodeId;
  const lease = await acquireLease(run, request);
  const overlay = await openOverlay(run, network, underlay, lease);
  log.info({ subnet: printSubnets(lease), network: printNetwork(network), node: request.nodeId }, 'lease acquired');
  log.info({ device: overlay.device, mtu: overlay.mtu, interface: underlay.name, port: overlay.port }, 'overlay up');

  setWaiting(run, 'the list of peers');
  openSide(run, network, overlay);
  const { lost } = await follow(run, network, request.nodeId, lease, overlay);
  const rules = await openRules(run, network, lease);
  observed.rules = rules;
  const writeSubnetFile = (): void => {
    const content = { config: network.config, lease, mtu: overlay.mtu, ipMasq: options.rules.masquerade };
    parts.writeSubnetFile(options.subnetFile, content);
  };
  writeSubnetFile();
  run.onMtu = writeSubnetFile;
  await openCni(run, () => nodeNetwork(network.config, lease, overlay.mtu, masquerades(rules.state())));
  run.giveBack = options.releaseOnExit;
  run.started = true;
  setWaiting(run, run.manager.fenced ? 'the lease to be renewed' : undefined);
  log.info({ subnetFile: options.subnetFile }, 'ready');
  run.registry.announceReady?.();
  const over = new AbortController();
  run.undo.push('the look at the network configuration', () => over.abort());
  const context = { ...run, stop: AbortSignal.any([stop, over.signal]) };
  const changed = untilConfigChanges(context, network, lease);
  await orStopped(Promise.race([lost, changed]), stop);
  run.giveBack = false; // the next round takes it up again, or replaces it
}

async function openHealth(
  options: DaemonOptions,
  parts: DaemonParts,
  undo: Undo,
  routes: ControlRoutes,
): Promise<Health | undefined> {
  if (options.health === undefined) return undefined;
  const health = await parts.startHealth(options.health.address, options.health.port, routes);
  undo.push('the health endpoint', () => health.close());
  return health;
}

async function fetchNetwork({ options, parts, log, stop, registry }: Run): Promise<DaemonNetwork> {
  const place = configPlace(options.registry);
  const advice = {
    etcd: 'check -etcd-endpoints and the network',
    file: 'look at the directory',
    kubernetes: 'check the kubeconfig and the network',
  }[options.registry.kind];
  const { clock, random } = parts;
  const { text } = await untilAvailable({ log, clock, stop, random }, () => registry.config(), advice);
  return readNetwork(text, place);
}

function leaseRequest(
  { options, parts, log, registry }: Run,
  { config, backend }: DaemonNetwork,
  underlay: ChosenInterface,
): AcquireRequest {
  const nodeId = registry.thisNode?.().name ?? parts.nodeId(options.nodeId);
  const addresses = publicAddresses(options.interface, { config, backend }, underlay);
  const attributes = { ...addresses, ...backendAttributes(backend, nodeId) };
  const request = { config, nodeId, attributes, ttlSeconds: options.leaseTtlSeconds };
  try {
    return { ...request, previousSubnet: parts.previousSubnet(options.subnetFile) };
  } catch (error) {
    log.debug({ file: options.subnetFile, error }, 'the old subnet file is of no use');
    return request;
  }
}

/**
 * The lease. If the start fails after it, one that we made just now goes back; one that was ours before stays. A stop may
 * come while the registry has made it and not yet answered: the undo waits for that, as long as undoing may take.
 */
async function acquireLease(run: Run, request: AcquireRequest): Promise<Lease> {
  const { options, log, stop, undo, manager, journal } = run;
  journal.start(request, registryName(options.registry));
  const acquiring = manager.acquire(request, stop).then(lease => {
    journal.acquired(lease, request);
    const isNew = lease.createRevision === lease.modRevision;
    run.giveBack = isNew || options.releaseOnExit;
    log.debug({ subnet: printSubnets(lease), isNew }, 'lease in hand');
    return lease;
  });
  undo.push('the lease', async () => {
    const lease = await acquiring.catch(() => undefined);
    if (lease === undefined || !run.giveBack) return;
    await manager.release();
    journal.released(lease);
  });
  return orStopped(acquiring, stop);
}

async function openOverlay(
  run: Run,
  { config, backend }: DaemonNetwork,
  underlay: ChosenInterface,
  own: Lease,
): Promise<Overlay> {
  const { options, parts, log, undo, manager } = run;
  try {
    undo.push('forwarding', parts.ensureForwarding({ ip6: config.enableIPv6 }));
  } catch (error) {
    log.warn({ error }, 'pods reach other nodes only with net.ipv4.ip_forward=1: set it');
  }
  const overlay = await parts.startOverlay({
    backend,
    network: config.network,
    subnetLength: config.subnetLength,
    own,
    ...(config.network6 && { network6: config.network6 }),
    ...(config.subnetLength6 !== undefined && { subnetLength6: config.subnetLength6 }),
    address: underlayAddress({ backend }, underlay),
    onMtu: () => followMtu(run),
    onMail: () => run.onMail?.(),
    underlayMtu: underlay.mtu,
    transport: options.transport,
    withoutOffloads: options.withoutOffloads,
    deviceName: options.deviceName ?? (backend.type === 'udp' ? 'flannel%d' : 'tulle%d'),
    log,
  });
  undo.push('the overlay', () => overlay.stop());
  // It has no peers yet, so nothing was forwarded without a deadline.
  run.overlay = overlay;
  run.observed.overlay = overlay;
  overlay.setDeadline(manager.deadline);
  return overlay;
}

/** Pods that are made from now on get the overlay's new MTU; those that run learn it from ICMP. */
function followMtu({ onMtu, options, log }: Run): void {
  try {
    onMtu?.();
  } catch (error) {
    log.warn({ error, subnetFile: options.subnetFile }, 'the subnet file still has the old MTU');
  }
}

/** Masquerade and forwarding in the packet filter. What cannot be written is logged and does not stop the node. */
async function openRules(run: Run, { config }: DaemonNetwork, { subnet, subnet6 }: Lease): Promise<TrafficRules> {
  const { options, parts, log, stop, undo } = run;
  const formerNetworks = parts.formerNetworks(options.subnetFile);
  const { removeOnExit, ...wanted } = options.rules;
  const expectNftables = config.enableNFTables;
  const starting = parts.startTrafficRules({
    ...wanted,
    ranges: [
      { family: 4, network: formatCidr4(config.network), subnet: formatCidr4(subnet) },
      ...(config.network6 && subnet6
        ? [{ family: 6 as const, network: formatCidr6(config.network6), subnet: formatCidr6(subnet6) }]
        : []),
    ],
    expectNftables,
    formerNetworks,
    log,
  });
  undo.push('the traffic rules', async () => {
    // A start that failed takes back what it made, but not what pods of an earlier run rely on.
    const isFirstRun = formerNetworks.length === 0;
    await (await starting).stop({ remove: removeOnExit || (!run.started && isFirstRun) });
  });
  return orStopped(starting, stop);
}

/** Whether pods need no rule of their own. */
function masquerades({ masquerade, degraded }: TrafficState): boolean {
  return degraded === undefined && (masquerade === 'nftables' || masquerade === 'iptables');
}
