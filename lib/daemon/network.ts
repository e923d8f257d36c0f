/** What the registry's net-conf means for this daemon: the network and the backend, or one line that says why not. */
import { type Backend, backendOf } from '../backend/backend.ts';
import { checkSubnetCount, type NetworkConfig, parseNetworkConfig } from '../lease/config.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { formatCidr4, formatCidr6 } from '../wire/cidr.ts';
import type { DaemonOptions } from './options.ts';

export interface DaemonNetwork {
  config: NetworkConfig;
  backend: Backend;
}

/** Where the net-conf is, in words that tell a person where to write. */
export function configPlace(registry: DaemonOptions['registry']): string {
  switch (registry.kind) {
    case 'file':
      return `${registry.directory}/config`;
    case 'etcd':
      return `the etcd key ${registry.prefix}/config`;
    case 'kubernetes':
      return registry.netConfigPath;
  }
}

/** @throws TulleError 'bad-config' that begins with `place`. */
export function readNetwork(text: string, place: string): DaemonNetwork {
  try {
    const config = parseNetworkConfig(text);
    const { enableIPv4, enableIPv6 } = config;
    if (!enableIPv4)
      throw unsupported('EnableIPv4 is false and pods with IPv6 alone are not supported yet: leave it true');
    const backend = backendOf(config);
    if (enableIPv6 && backend.type === 'udp')
      throw unsupported('EnableIPv6 is true and flannel\'s udp carries IPv4 only: set Backend.Type to "tulle"');
    checkSubnetCount(config);
    return { config, backend };
  } catch (error) {
    throw new TulleError('bad-config', `${place}: ${messageOf(error)}`, { cause: error });
  }
}

/** "10.5.0.0/16" or "10.5.0.0/16 fd00::/48", for the log. */
export function printNetwork({ config: { network, network6 } }: DaemonNetwork): string {
  return network6 === undefined ? formatCidr4(network) : `${formatCidr4(network)} ${formatCidr6(network6)}`;
}

function unsupported(message: string): TulleError {
  return new TulleError('bad-config', message);
}
