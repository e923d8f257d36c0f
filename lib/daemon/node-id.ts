import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';

/**
 * What tells this node from all others when it looks for its own lease: the machine id of systemd and D-Bus, which
 * survives reboots and changes of address; on a machine without one the host name.
 */
export function machineNodeId(file = '/etc/machine-id'): string {
  try {
    const text = readFileSync(file, 'utf8').trim();
    // "uninitialized" is what systemd writes before the first boot is done.
    if (/^[0-9a-f]{32}$/.test(text)) return text;
  } catch {
    // No such file: containers and small systems.
  }
  return hostname();
}
