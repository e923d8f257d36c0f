/**
 * Whether frames between the ports of one bridge pass the packet filter (the kernel's module br_netfilter). A Service's address is
 * exchanged for a pod's by a rule of the packet filter. Where that pod is on the client's own bridge its answer would go
 * straight to the client, past the rule that exchanges the address again, and belong to no connection that the client knows.
 */
import { setSysctl } from './sysctl.ts';

/** One of each network namespace since Linux 5.3; they are there when the module is loaded, and 1 unless somebody said otherwise. */
export const BRIDGE_NETFILTER = {
  4: 'net.bridge.bridge-nf-call-iptables',
  6: 'net.bridge.bridge-nf-call-ip6tables',
} as const;

/**
 * Switches it on. It stays on, as does the bridge: pods are plugged in for longer than the daemon runs.
 * @param namespace path; undefined is the calling thread's own
 * @throws TulleError, 'ENOENT' where br_netfilter is not loaded
 */
export function ensureBridgeNetfilter(namespace: string | undefined, families: readonly (4 | 6)[]): void {
  for (const family of families) setSysctl(namespace, BRIDGE_NETFILTER[family], 1);
}
