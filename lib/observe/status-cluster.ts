/** What all nodes say, asked through one of them: a line each, and what did not answer. */
import { formatTable } from './lease-rows.ts';
import type { StatusDocument } from './status.ts';
import { duration } from './status-print.ts';

/** GET /cluster: this node's own status first. */
export interface ClusterDocument {
  nodes: readonly ClusterNode[];
}

export interface ClusterNode {
  subnet: string;
  node: string | null;
  endpoint: string | null;
  /** Absent where it did not answer; then `error` says why. */
  status?: Pick<StatusDocument, 'healthy' | 'problems' | 'lease' | 'version' | 'drops'>;
  error?: string;
}

/** The table; healthy is when every node answered and is well. */
export function printCluster(answer: unknown): { text: string; healthy: boolean } {
  const { nodes } = answer as ClusterDocument;
  const rows = nodes.map(({ node, subnet, endpoint, status, error }) => [
    node ?? '-',
    subnet,
    endpoint ?? '-',
    status === undefined ? 'NO ANSWER' : status.healthy ? 'healthy' : 'NOT HEALTHY',
    status === undefined ? '-' : leaseCell(status),
    status === undefined ? '-' : String(Object.values(status.drops).reduce((sum, count) => sum + count, 0)),
    status === undefined ? (error ?? '') : status.problems.map(({ text }) => text).join('; '),
  ]);
  const healthy = nodes.length > 0 && nodes.every(({ status }) => status?.healthy === true);
  const silent = nodes.filter(({ status }) => status === undefined).length;
  const end = silent === 0 ? '' : `${silent} of ${nodes.length} nodes did not answer\n`;
  return { text: formatTable(['NODE', 'SUBNET', 'ENDPOINT', '', 'LEASE', 'DROPPED', ''], rows) + end, healthy };
}

function leaseCell({ lease }: NonNullable<ClusterNode['status']>): string {
  if (lease.subnet === null) return 'none';
  if (lease.fenced) return 'FENCED';
  return lease.secondsLeft === null ? 'does not end' : `${duration(lease.secondsLeft)} left`;
}
