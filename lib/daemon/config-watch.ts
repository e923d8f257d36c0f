/**
 * The net-conf under a running daemon. It is read once a minute, which every registry can do and which spreads the nodes
 * of a cluster over that minute when it changes. What cannot be used is reported once and changes nothing.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../lease/clock.ts';
import { fitsConfig } from '../lease/config.ts';
import { type Lease, printSubnets } from '../lease/lease.ts';
import type { Registry } from '../lease/registry.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { configPlace, type DaemonNetwork, printNetwork, readNetwork } from './network.ts';
import type { DaemonOptions } from './options.ts';

export interface ConfigWatchContext {
  options: Pick<DaemonOptions, 'registry'>;
  parts: { clock: Clock };
  registry: Pick<Registry, 'config'>;
  log: Logger;
  stop: AbortSignal;
}

export const CONFIG_POLL_MS = 60_000;

/** Resolves when the net-conf asks for another network, or for another lease than ours; never rejects. */
export async function untilConfigChanges(
  context: ConfigWatchContext,
  inForce: DaemonNetwork,
  lease: Lease,
): Promise<void> {
  const { options, parts, registry, log, stop } = context;
  let seen: string | undefined;
  while (!stop.aborted) {
    await parts.clock.sleep(CONFIG_POLL_MS, stop);
    if (stop.aborted) return;
    let text: string;
    try {
      ({ text } = await registry.config());
    } catch (error) {
      log.debug({ error: messageOf(error) }, 'the network configuration could not be looked at');
      continue; // a registry that is away, or emptied: what is in force stays in force
    }
    if (text === seen) continue;
    seen = text;
    try {
      const now = readNetwork(text, configPlace(options.registry));
      const why = whyAnew(inForce, now, lease);
      if (why === undefined) continue;
      log.warn({ why }, 'the network configuration changed: this node starts anew with it');
      return;
    } catch (error) {
      log.error({ reason: messageOf(error) }, 'the network configuration is of no use now: going on with the old one');
    }
  }
}

/** What of a new net-conf this node cannot adopt as it runs, or undefined. */
function whyAnew(before: DaemonNetwork, now: DaemonNetwork, lease: Lease): string | undefined {
  const [was, is] = [before.config, now.config];
  if (!isDeepStrictEqual([was.network, was.network6], [is.network, is.network6]))
    return `Network is ${printNetwork(now)}, not ${printNetwork(before)}`;
  if (was.subnetLength !== is.subnetLength) return `SubnetLen is ${is.subnetLength}, not ${was.subnetLength}`;
  if (was.subnetLength6 !== is.subnetLength6) return `IPv6SubnetLen is ${is.subnetLength6}, not ${was.subnetLength6}`;
  if (!isDeepStrictEqual(before.backend, now.backend)) {
    const print = ({ backend }: DaemonNetwork): string =>
      `${backend.type} on port ${backend.port}${backend.underlay === 6 ? ' over IPv6' : ''}`;
    return `Backend is ${print(now)}, not ${print(before)}`;
  }
  return fitsConfig(is, lease) ? undefined : `${printSubnets(lease)} is not between SubnetMin and SubnetMax now`;
}
