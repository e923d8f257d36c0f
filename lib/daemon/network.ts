/** What the registry's net-conf means for this daemon: the network and the backend, or one line that says why not. */
import { type Backend, backendOf } from '../backend/backend.ts';
import { checkSubnetCount, type NetworkConfig, parseNetworkConfig } from '../lease/config.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { formatCidr4 } from '../wire/cidr.ts';
import type { DaemonOptions } from './options.ts';

export interface DaemonNetwork {
  config: NetworkConfig;
  backend: Backend;
}

/** Where the net-conf is, in words that tell a person where to write. */
export function configPlace(registry: DaemonOptions['registry']): string {
  return registry.kind === 'file' ? `${registry.directory}/config` : `the etcd key ${registry.prefix}/config`;
}

/** @throws TulleError 'bad-config' that begins with `place`. */
export function readNetwork(text: string, place: string): DaemonNetwork {
  try {
    const config = parseNetworkConfig(text);
    const { enableIPv4, enableIPv6 } = config;
    if (!enableIPv4)
      throw unsupported('EnableIPv4 is false and pods with IPv6 alone are not supported yet: leave it true');
    if (enableIPv6) throw unsupported('EnableIPv6 is true and IPv6 pods are not supported yet: set it to false');
    checkSubnetCount(config);
    return { config, backend: backendOf(config) };
  } catch (error) {
    throw new TulleError('bad-config', `${place}: ${messageOf(error)}`, { cause: error });
  }
}

/** "10.5.0.0/16", for the log. */
export function printNetwork(network: DaemonNetwork): string {
  return formatCidr4(network.config.network);
}

function unsupported(message: string): TulleError {
  return new TulleError('bad-config', message);
}
