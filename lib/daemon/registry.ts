/** Opens the registry that the options name. */
import { openFileRegistry } from '../lease/file-registry.ts';
import { subnetKey } from '../lease/lease.ts';
import { type Registry, registryCodeOf } from '../lease/registry.ts';
import { TulleError } from '../util/errors.ts';
import { type Logger, silentLogger } from '../util/log.ts';
import type { DaemonOptions } from './options.ts';

export async function openRegistry(options: DaemonOptions['registry'], log: Logger): Promise<Registry> {
  if (options.kind === 'file') {
    await refuseCorruptFiles(options.directory);
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
 * A running daemon skips a lease file that it cannot read: peers that are well must not suffer. At the start a person
 * is looking, and the file may be our own lease: better to stop and say so.
 */
async function refuseCorruptFiles(directory: string): Promise<void> {
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
    const [first] = unreadable;
    if (first === undefined) return;
    const file = `${directory}/subnets/${subnetKey(first)}`;
    const reason = reasons.get(file);
    const what = `the lease file ${file} is corrupt${reason === undefined ? '' : ` (${reason})`}`;
    throw new TulleError('corrupt', `${what}: mend it, or remove it if its node is gone`);
  } catch (error) {
    // No directory yet is no corrupt file: the daemon waits for it.
    if (registryCodeOf(error) !== 'no-config') throw error;
  } finally {
    await registry.close();
  }
}
