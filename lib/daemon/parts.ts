/**
 * The rooms that the daemon assembles, behind one interface: the run sequence (daemon.ts) knows only this, and tests
 * give it parts of their own.
 */
import { type Overlay, type OverlayOptions, startOverlay } from '../backend/overlay.ts';
import { ensureForwarding } from '../host/forwarding.ts';
import { type ChosenInterface, chooseInterface } from '../host/interface.ts';
import { nodeId } from '../host/node-id.ts';
import { type OverlayRange, refuseOtherOverlay } from '../host/other-overlay.ts';
import { startTrafficRules, type TrafficOptions, type TrafficRules } from '../host/rules.ts';
import { type Clock, systemClock } from '../lease/clock.ts';
import { type LeaseJournal, openJournal } from '../lease/journal-writer.ts';
import type { LeaseSubnets } from '../lease/lease.ts';
import type { Registry } from '../lease/registry.ts';
import { previousSubnetOf, readSubnetEnv, type SubnetEnvContent, writeSubnetEnv } from '../lease/subnet-env.ts';
import { withRtnetlink } from '../netlink/netlink.ts';
import type { ControlRoutes } from '../observe/control.ts';
import { type ControlServer, serveControl } from '../observe/control-server.ts';
import { type PageOptions, type PageServer, startPageServer } from '../observe/page-server.ts';
import type { Logger } from '../util/log.ts';
import { formatCidr4, formatCidr6 } from '../wire/cidr.ts';
import { type CniOptions, type CniService, startCni } from './cni.ts';
import { type Health, startHealth } from './health.ts';
import type { DaemonOptions, InterfaceOptions } from './options.ts';
import { checkMachine } from './preflight.ts';
import { openRegistry } from './registry.ts';

export interface DaemonParts {
  clock: Clock;
  /** From 0 to 1. */
  random(): number;
  /** Throws when the machine cannot carry an overlay at all. */
  checkMachine(): void;
  openRegistry(options: DaemonOptions['registry'], log: Logger, subnetFile: string): Promise<Registry>;
  /** The observer of the lease: it decides nothing and never throws. */
  openJournal(path: string, log: Logger): LeaseJournal;
  nodeId(given: string | undefined): string;
  startHealth(address: string, port: number, routes: ControlRoutes): Promise<Health>;
  chooseInterface(options: InterfaceOptions & { needIp4: boolean; needIp6: boolean }): ChosenInterface;
  /** Throws when this machine carries these networks by other means than `device`; gives addresses that are odd. */
  refuseOtherOverlay(ranges: readonly OverlayRange[], device?: string): { link: string; address: string }[];
  /** Returns the undo. */
  ensureForwarding(families: { ip6: boolean }): () => void;
  /** The subnets that a subnet.env names. */
  previousSubnet(path: string): Partial<LeaseSubnets>;
  /** The networks that a subnet.env names; none where there is no such file. */
  formerNetworks(path: string): readonly string[];
  startTrafficRules(options: TrafficOptions): Promise<TrafficRules>;
  writeSubnetFile(path: string, content: SubnetEnvContent): void;
  startOverlay(options: OverlayOptions): Promise<Overlay>;
  startCni(options: CniOptions): Promise<CniService>;
  serveControl(path: string, routes: ControlRoutes, log: Logger): Promise<ControlServer>;
  startPageServer(options: PageOptions): Promise<PageServer>;
}

/** Where what must outlive the daemon is kept: only a made-up node id, on a machine that has none. */
const STATE_DIRECTORY = '/var/lib/tulle';

export const realParts: DaemonParts = {
  clock: systemClock,
  random: Math.random,
  checkMachine,
  openRegistry,
  openJournal: (path, log) => openJournal({ path, log }),
  nodeId: given => nodeId({ ...(given !== undefined && { given }), stateDirectory: STATE_DIRECTORY }),
  startHealth,
  chooseInterface: options => withRtnetlink(undefined, netlink => chooseInterface(netlink, options)),
  refuseOtherOverlay: (ranges, device) =>
    withRtnetlink(undefined, netlink => refuseOtherOverlay(netlink, ranges, device)),
  ensureForwarding: families => ensureForwarding(undefined, families),
  previousSubnet: path => previousSubnetOf(readSubnetEnv(path)),
  formerNetworks,
  startTrafficRules,
  writeSubnetFile: writeSubnetEnv,
  startOverlay,
  startCni,
  serveControl,
  startPageServer,
};

function formerNetworks(path: string): readonly string[] {
  try {
    const { networks = [], networks6 = [] } = readSubnetEnv(path) ?? {};
    return [...networks.map(formatCidr4), ...networks6.map(formatCidr6)];
  } catch {
    return [];
  }
}
