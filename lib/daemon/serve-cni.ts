/** Serving CNI: beside the overlay, or (tulled --cni-only) without a lease and without an overlay. */
import type { NodeNetwork } from '../cni/settings.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { Undo } from '../util/undo.ts';
import { announce, type Notifier, SILENT } from './notify.ts';
import { openObservation } from './observe.ts';
import type { DaemonOptions } from './options.ts';
import type { DaemonParts } from './parts.ts';
import { type Run, setWaiting } from './run.ts';

const UNDO_LIMIT_MS = 4000;

/**
 * Serves CNI if the options say so. The default socket is taken where it can be had: several daemons of one machine need
 * not be told that only one of them plugs pods in. A socket that was asked for must work.
 */
export async function openCni(
  { options, parts, log, undo, observed }: Pick<Run, 'options' | 'parts' | 'log' | 'undo' | 'observed'>,
  node: () => NodeNetwork | undefined,
): Promise<void> {
  if (options.cni === undefined) return;
  const { socket, given, dataDir } = options.cni;
  try {
    const service = await parts.startCni({
      socket,
      dataDir,
      node,
      log,
      onDone: (command, code, ms) => observed.meters.cni.done(command, code, ms),
    });
    undo.push('the CNI socket', () => service.close());
    observed.cni = service;
    log.debug({ socket }, 'CNI served');
  } catch (error) {
    const isPlace = error instanceof TulleError && error.code.startsWith('cni-socket');
    if (given || !isPlace) throw error;
    log.warn({ reason: messageOf(error) }, 'CNI is not served: give another -cni-socket, or none');
  }
}

/** Runs until `stop` is aborted. @throws TulleError when the socket cannot be served */
export async function runCniOnly(
  options: DaemonOptions,
  parts: DaemonParts,
  log: Logger,
  stop: AbortSignal,
  notifier: Notifier = SILENT,
): Promise<void> {
  const undo = new Undo();
  try {
    const observed = await openObservation({ options, parts, log, undo });
    const health =
      options.health === undefined
        ? undefined
        : await parts.startHealth(options.health.address, options.health.port, observed.routes);
    if (health !== undefined) undo.push('the health endpoint', () => health.close());
    await openCni({ options, parts, log, undo, observed }, () => undefined);
    setWaiting({ health: announce(health, notifier), observed }, undefined);
    log.info({ socket: options.cni?.socket }, 'ready, for CNI only');
    if (!stop.aborted) await new Promise(resolve => stop.addEventListener('abort', resolve, { once: true }));
  } finally {
    notifier.stopping();
    const clean = await undo.run(log, UNDO_LIMIT_MS);
    if (stop.aborted) log.info({ clean }, 'stopped');
  }
}
