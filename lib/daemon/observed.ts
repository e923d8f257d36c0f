/** What of a running daemon can be looked at, and what an observer is. observe.ts puts both together. */
import type { Overlay } from '../backend/overlay.ts';
import type { TrafficRules } from '../host/rules.ts';
import type { LeaseManager } from '../lease/manager.ts';
import type { Registry } from '../lease/registry.ts';
import type { CniMeter } from '../observe/cni-meter.ts';
import type { ControlRoutes } from '../observe/control.ts';
import type { NodeMessages } from '../observe/node-messages.ts';
import type { PeerHealth } from '../observe/peer-probes.ts';
import type { RateWindow } from '../observe/rates.ts';
import type { RegistryMeter } from '../observe/registry-meter.ts';
import type { TraceQuestion } from '../observe/trace/packet.ts';
import type { Story } from '../observe/trace/story.ts';
import type { Logger } from '../util/log.ts';
import type { Undo } from '../util/undo.ts';
import type { Subnet4 } from '../wire/cidr.ts';
import type { CniService } from './cni.ts';
import type { DaemonNetwork } from './network.ts';
import type { DaemonOptions } from './options.ts';
import type { DaemonParts } from './parts.ts';
import type { PeerWatch } from './peer-watch.ts';

/** What is measured of the peers. */
export interface PeerView {
  /** undefined: it is not probed, because it speaks flannel's format or probes are off. */
  of(subnet: Subnet4): PeerHealth | undefined;
  /** How long ago anything valid came from this peer; undefined: never. Known of every peer. */
  lastHeardMs(subnet: Subnet4): number | undefined;
}

/** One packet followed on its way; tracing.ts. */
export interface Tracer {
  /** @throws TulleError 'unavailable', 'busy', 'timeout' */
  trace(question: TraceQuestion, how: { explainOnly?: boolean; signal?: AbortSignal }): Promise<Story>;
}

/** What there is to look at; each is undefined until it is there, and again when it is gone. */
export interface Observed {
  readonly options: DaemonOptions;
  readonly parts: DaemonParts;
  readonly log: Logger;
  /** When the process began, by the parts' clock. */
  readonly startedMs: number;
  readonly rates: RateWindow;
  /** Served on the control socket, some of it elsewhere, too. */
  readonly routes: ControlRoutes;
  readonly meters: { readonly registry: RegistryMeter; readonly cni: CniMeter };
  nodeId: string | undefined;
  registry: Registry | undefined;
  network: DaemonNetwork | undefined;
  manager: LeaseManager | undefined;
  overlay: Overlay | undefined;
  peers: PeerWatch | undefined;
  /** What probes told of the peers. */
  probes: PeerView | undefined;
  /** Questions to the other nodes, and our answers. */
  messages: NodeMessages | undefined;
  /** Follows a packet on its way. */
  tracing: Tracer | undefined;
  /** What this node says of itself when it is asked, by its operator or by another node. A room that knows more replaces it. */
  summary: () => object;
  rules: TrafficRules | undefined;
  cni: CniService | undefined;
  /** What the start waits for; undefined when the node is ready. */
  waitingFor: string | undefined;
}

/** Adds its routes; what it began in the background ends with `undo`. */
export type Observer = (observed: Observed, routes: ControlRoutes, undo: Undo) => void;
