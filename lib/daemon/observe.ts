/**
 * Looking at a running daemon from outside. The rooms that observe register here what they answer; the run sequence only
 * keeps `Observed` true as it goes. The control socket is open from the first step to the last, so it also answers while
 * the daemon waits for its registry, and while it is fenced.
 */
import { CniMeter } from '../observe/cni-meter.ts';
import { ControlRoutes } from '../observe/control.ts';
import { RateWindow } from '../observe/rates.ts';
import { RegistryMeter } from '../observe/registry-meter.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { Undo } from '../util/undo.ts';
import { clusterRoute } from './cluster.ts';
import { observeCapture } from './observe-capture.ts';
import { observeMetrics } from './observe-metrics.ts';
import { observeStatus } from './observe-status.ts';
import type { Observed, Observer } from './observed.ts';
import type { DaemonOptions } from './options.ts';
import type { DaemonParts } from './parts.ts';
import { peersRoute } from './peers-route.ts';
import { traceRoute } from './tracing.ts';
import { openUi } from './ui.ts';

/** Every room that observes, in no order. */
const OBSERVERS: readonly Observer[] = [
  observeCapture,
  observeMetrics,
  observeStatus,
  peersRoute,
  clusterRoute,
  traceRoute,
];

interface Given {
  options: DaemonOptions;
  parts: DaemonParts;
  log: Logger;
  undo: Undo;
}

/** Opens the control socket, if the options ask for one, with all routes. The first step of every run. */
export async function openObservation({ options, parts, log, undo }: Given): Promise<Observed> {
  const routes = new ControlRoutes();
  const observed: Observed = {
    options,
    parts,
    log,
    startedMs: parts.clock.monotonicMs(),
    rates: new RateWindow(),
    routes,
    meters: { registry: new RegistryMeter(parts.clock), cni: new CniMeter() },
    nodeId: options.nodeId,
    registry: undefined,
    network: undefined,
    manager: undefined,
    overlay: undefined,
    peers: undefined,
    probes: undefined,
    messages: undefined,
    tracing: undefined,
    summary: () => ({}),
    rules: undefined,
    cni: undefined,
    waitingFor: 'the daemon to start',
  };
  for (const observer of OBSERVERS) observer(observed, routes, undo);
  const isAsked = await openControl({ options, parts, log, undo }, routes);
  await openUi(observed, undo, isAsked);
  return observed;
}

/**
 * The default socket is taken where it can be had: several daemons of one machine need not be told that only one of them
 * is asked without --socket. A socket that was asked for must work. True when this daemon answers there.
 */
async function openControl({ options, parts, log, undo }: Given, routes: ControlRoutes): Promise<boolean> {
  if (options.control === undefined) return false;
  const { socket, given } = options.control;
  try {
    const server = await parts.serveControl(socket, routes, log);
    undo.push('the control socket', () => server.close());
    return true;
  } catch (error) {
    const isPlace = error instanceof TulleError && error.code.startsWith('control-socket');
    if (given || !isPlace) throw error;
    log.warn({ reason: messageOf(error) }, 'there is no control socket: give a --control-socket, or "none"');
    return false;
  }
}
