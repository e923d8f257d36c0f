/** The places of a running lab by name: where they are and which address they have. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { askControl } from '../observe/control-client.ts';
import { TulleError } from '../util/errors.ts';
import { controlSocket } from './cluster.ts';
import { namespaceOf } from './exec.ts';
import type { End } from './measure.ts';
import { UNDERLAY } from './plan.ts';
import type { LabState } from './state.ts';

export interface Place extends End {
  /** The node that it is, or that it is on; undefined for the switch. */
  readonly node: string | undefined;
}

interface ResultLine {
  readonly nodes: readonly { readonly name: string; readonly publicIp: string }[];
  readonly pods: readonly { readonly name: string; readonly node: string; readonly ip: string }[];
}

/** A node, a pod or the switch of a lab that is ready. */
export function placeOf(state: LabState, name: string): Place {
  const file = namespaceOf(state, name);
  if (!state.record.ready) throw new TulleError('starting', `the lab "${state.record.name}" is still coming up`);
  const { nodes, pods } = JSON.parse(readFileSync(join(state.directory, 'result.json'), 'utf8')) as ResultLine;
  const node = nodes.find(entry => entry.name === name);
  if (node !== undefined) return { name, namespaceFile: file, address: node.publicIp, node: name };
  const pod = pods.find(entry => entry.name === name);
  if (pod !== undefined) return { name, namespaceFile: file, address: pod.ip, node: pod.node };
  return { name, namespaceFile: file, address: UNDERLAY.switchAddress, node: undefined };
}

/** What the lab reads of a node's status. */
export interface NodeStatus {
  readonly pid: number;
  readonly drops: Readonly<Record<string, number>>;
  readonly counters: Readonly<Record<string, number>>;
  readonly lease: { readonly subnet: string | null; readonly key: string | null; readonly fenced: boolean };
  readonly overlay: { readonly mtu: number; readonly transport: string } | null;
}

/** The status of a node's daemon, as `tulle status --json` shows it. */
export async function statusOf(state: LabState, node: string): Promise<NodeStatus> {
  return (await askControl(controlSocket(state, node), { path: '/status' })) as NodeStatus;
}
