/** A node routes between its pods and the overlay, so its kernel must forward packets. */
import { codeOf } from '../util/errors.ts';
import { getSysctl, setSysctl } from './sysctl.ts';

const KEYS = { ip4: 'net.ipv4.ip_forward', ip6: 'net.ipv6.conf.all.forwarding' } as const;

/**
 * Switches forwarding on, for IPv4 unless told otherwise. Returns the undo: it puts back what it changed, unless
 * somebody changed it again in the meantime, and does nothing the second time.
 * @param namespace path; none is the calling thread's own
 */
export function ensureForwarding(namespace?: string, families: { ip4?: boolean; ip6?: boolean } = {}): () => void {
  const { ip4 = true, ip6 = false } = families;
  const changed: { key: string; before: string }[] = [];
  const undo = (): void => {
    for (const { key, before } of changed.splice(0).reverse()) restore(namespace, key, before);
  };
  try {
    for (const key of [...(ip4 ? [KEYS.ip4] : []), ...(ip6 ? [KEYS.ip6] : [])]) {
      changed.push({ key, before: setSysctl(namespace, key, 1) });
    }
  } catch (error) {
    undo();
    throw error;
  }
  return undo;
}

function restore(namespace: string | undefined, key: string, before: string): void {
  try {
    if (getSysctl(namespace, key) === '1') setSysctl(namespace, key, before);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error; // the namespace went first, and its settings with it
  }
}
