/** Opens the registry that the options name. */
import { openFileRegistry } from '../lease/file-registry.ts';
import { type LeaseSubnets, sameSubnets, subnetKey } from '../lease/lease.ts';
import { type Registry, registryCodeOf } from '../lease/registry.ts';
import { previousSubnetOf, readSubnetEnv } from '../lease/subnet-env.ts';
import { TulleError } from '../util/errors.ts';
import { type Logger, silentLogger } from '../util/log.ts';
import type { DaemonOptions } from './options.ts';

/** `subnetFile`: the subnet.env of the node that starts, by which it knows its lease; absent for who only looks. */
export async function openRegistry(
  options: DaemonOptions['registry'],
  log: Logger,
  subnetFile?: string,
): Promise<Registry> {
  if (options.kind === 'file') {
    if (subnetFile !== undefined) await refuseCorruptLease(options.directory, subnetFile);
    return openFileRegistry(options.directory, { log });
  }
  if (options.kind === 'kubernetes') {
    // Only here: client-node costs more than half a second at start.
    const [{ openKubeRegistry }, { nodeSourceOf }] = await Promise.all([
      import('../kube/registry.ts'),
      import('../kube/identity.ts'),
    ]);
    return openKubeRegistry({ ...options, node: nodeSourceOf(process.env), log });
  }
  // Only here: etcd3 costs 300 ms at start, which a file registry need not pay.
  const { openEtcdRegistry } = await import('../../etcd/registry.ts');
  return openEtcdRegistry({ ...options, log });
}

/** By which the journal knows it again: not the servers, which come and go, but what they keep. */
export function registryName(options: DaemonOptions['registry']): string {
  if (options.kind === 'kubernetes') return `kubernetes:${options.annotationPrefix}`;
  return options.kind === 'file' ? `file:${options.directory}` : `etcd:${options.prefix}`;
}

/**
 * A lease file that cannot be read is skipped with a warning: nodes that are well must not suffer. But where it is our
 * own, pods of the last run have addresses of its subnet, and another one would do them no good: better to stop and say so.
 */
async function refuseCorruptLease(directory: string, subnetFile: string): Promise<void> {
  const previous = previousSubnet(subnetFile);
  if (previous === undefined) return;
  const reasons = new Map<string, string>();
  const listen: Logger = {
    ...silentLogger,
    warn: fields => {
      if ('file' in fields && 'reason' in fields) reasons.set(String(fields.file), String(fields.reason));
    },
  };
  const registry = openFileRegistry(directory, { log: listen });
  try {
    const { unreadable = [] } = await registry.list();
    const own = unreadable.find(subnets => sameSubnets(subnets, previous));
    if (own === undefined) return;
    const file = `${directory}/subnets/${subnetKey(own)}`;
    const reason = reasons.get(file);
    const what = `the lease file ${file} is corrupt${reason === undefined ? '' : ` (${reason})`}`;
    throw new TulleError('corrupt', `${what}: mend it, or remove it to get a new lease`);
  } catch (error) {
    // A directory that is not there yet, or cannot be read just now, is no corrupt file: the daemon waits for it.
    const code = registryCodeOf(error);
    if (code !== 'no-config' && code !== 'unavailable') throw error;
  } finally {
    await registry.close();
  }
}

function previousSubnet(subnetFile: string): LeaseSubnets | undefined {
  try {
    const { subnet, subnet6 } = previousSubnetOf(readSubnetEnv(subnetFile));
    return subnet && { subnet, ...(subnet6 && { subnet6 }) };
  } catch {
    return undefined; // the daemon says so where it matters
  }
}
