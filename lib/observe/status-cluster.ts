/** What all nodes say, asked through one of them: a line each, and what did not answer. */
import { formatTable } from './lease-rows.ts';
import { printable } from './printable.ts';
import { duration } from './status-print.ts';

/** One node of GET /cluster; this daemon's own is the first. */
export interface ClusterNode {
  subnet: string;
  node: string | null;
  endpoint: string | null;
  /** Null where it did not answer, or with something that makes no sense; then `error` says why. */
  summary: NodeSummary | null;
  error: string;
}

/** What is shown of a node's own status. */
export interface NodeSummary {
  healthy: boolean;
  problems: string[];
  /** "23 h left" and the like. */
  lease: string;
  dropped: number;
}

/** What nodes answered is what other machines sent, so nothing of it is believed to have a shape. */
export function readCluster(answer: unknown): ClusterNode[] {
  return listOf(field(answer, 'nodes')).map(entry => {
    const status = field(entry, 'status');
    const summary = status === undefined ? undefined : readSummary(status);
    const nonsense = status === undefined ? 'no answer' : 'its answer makes no sense: is it another version?';
    return {
      subnet: textOf(field(entry, 'subnet')) ?? '-',
      node: textOf(field(entry, 'node')) ?? null,
      endpoint: textOf(field(entry, 'endpoint')) ?? null,
      summary: summary ?? null,
      error: summary === undefined ? (textOf(field(entry, 'error')) ?? nonsense) : '',
    };
  });
}

function readSummary(status: unknown): NodeSummary | undefined {
  const healthy = field(status, 'healthy');
  if (typeof healthy !== 'boolean') return undefined;
  const drops = field(status, 'drops');
  const counts = typeof drops === 'object' && drops !== null ? Object.values(drops) : [];
  return {
    healthy,
    problems: listOf(field(status, 'problems')).flatMap(problem => textOf(field(problem, 'text')) ?? []),
    lease: leaseText(field(status, 'lease')),
    dropped: counts.reduce<number>((sum, count) => sum + (typeof count === 'number' && count > 0 ? count : 0), 0),
  };
}

function leaseText(lease: unknown): string {
  if (textOf(field(lease, 'subnet')) === undefined) return 'none';
  if (field(lease, 'fenced') === true) return 'FENCED';
  const left = field(lease, 'secondsLeft');
  return typeof left === 'number' ? `${duration(left)} left` : 'does not end';
}

/** Whether every node answered and is well. */
export const isClusterHealthy = (nodes: readonly ClusterNode[]): boolean =>
  nodes.length > 0 && nodes.every(({ summary }) => summary?.healthy === true);

export function printCluster(nodes: readonly ClusterNode[]): string {
  const rows = nodes.map(({ node, subnet, endpoint, summary, error }) => [
    node ?? '-',
    subnet,
    endpoint ?? '-',
    summary === null ? 'NO ANSWER' : summary.healthy ? 'healthy' : 'NOT HEALTHY',
    summary?.lease ?? '-',
    summary === null ? '-' : String(summary.dropped),
    summary === null ? error : summary.problems.join('; '),
  ]);
  const silent = nodes.filter(({ summary }) => summary === null).length;
  const end = silent === 0 ? '' : `${silent} of ${nodes.length} nodes did not answer\n`;
  return printable(formatTable(['NODE', 'SUBNET', 'ENDPOINT', 'STATUS', 'LEASE', 'DROPPED', ''], rows) + end);
}

const field = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;
const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
const textOf = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? value.replaceAll('\n', ' ') : undefined;
