/** Network namespaces that are ready for use: a file that holds the namespace, with its loopback link up. */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { createNamespace, removeNamespace } from '../sys/sys.ts';
import { withRtnetlink } from './netlink.ts';

/**
 * Makes the directory, a new network namespace that lives as long as the file `path`, and sets its lo up.
 * EEXIST when the file is there. `removeNamespace` of lib/sys undoes it.
 */
export function makeNamespace(path: string): void {
  mkdirSync(dirname(path), { recursive: true });
  createNamespace(path);
  try {
    withRtnetlink(path, netlink => netlink.setLink('lo', { up: true }));
  } catch (error) {
    removeNamespace(path);
    throw error;
  }
}
