/** The lab's faults as the page's form offers them, and back. Pure. */
import type { FaultKind as FaultForm, FaultView } from '../observe/microscope/model.ts';
import { type CheckedSpec, describe, FAULT_KINDS, type FaultKind, type FaultSpec } from './fault-spec.ts';
import { usageError } from './options.ts';

const percent = (usual: number) => ({ label: 'of the frames', unit: '%', least: 1, most: 100, usual });

const FORMS: Readonly<Record<FaultKind, Omit<FaultForm, 'kind'>>> = {
  delay: {
    title: 'Delay',
    about: 'Every frame comes later, each way: watch the round trip grow by twice that.',
    amount: { label: 'later by', unit: 'ms', least: 1, most: 2000, usual: 40 },
    between: true,
  },
  loss: { title: 'Loss', about: 'Some frames are lost. What does TCP make of it?', amount: percent(10), between: true },
  reorder: {
    title: 'Reorder',
    about: 'Some frames are held back for 5 ms, and others overtake them.',
    amount: percent(20),
    between: true,
  },
  duplicate: { title: 'Duplicate', about: 'Some frames come twice.', amount: percent(20), between: true },
  mtu: {
    title: 'Small MTU',
    about: 'Longer IP packets vanish and nobody is told: a black hole. Small packets pass, a TCP stream hangs.',
    amount: { label: 'longest packet', unit: 'bytes', least: 576, most: 1500, usual: 1400 },
    between: true,
  },
  partition: { title: 'Partition', about: 'Nothing passes any more.', between: true },
  nat: {
    title: 'NAT',
    about: 'The node’s packets come from another address: no leaseholder’s, so the other side refuses them.',
    between: true,
  },
};

/** In the order in which a learner meets them. */
const ORDER: readonly FaultKind[] = ['delay', 'loss', 'partition', 'mtu', 'nat', 'reorder', 'duplicate'];

export const faultForms = (): FaultForm[] => ORDER.map(kind => ({ kind, ...FORMS[kind] }));

export function faultView(fault: CheckedSpec & { id: string }): FaultView {
  const where = fault.where === null ? 'between all nodes' : fault.where.replace('-', ' ↔ ');
  return { id: fault.id, text: `${where}: ${describe(fault)}` };
}

/** What the form asked for. Throws TulleError 'usage'; places and ranges are checked by addFault. */
export function specOf(body: unknown): FaultSpec {
  const {
    kind: name,
    where,
    amount,
  } = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>;
  const kind = FAULT_KINDS.find(each => each === name);
  if (kind === undefined) throw usageError(`a fault is one of ${FAULT_KINDS.join(', ')}`);
  if (where !== undefined && typeof where !== 'string') throw usageError('"where" is a node, or two: "node1-node2"');
  const place = where === undefined ? {} : { where };
  if (kind === 'partition' || kind === 'nat') return { kind, ...place };
  if (typeof amount !== 'number' || !Number.isFinite(amount))
    throw usageError(`a fault of kind ${kind} needs an amount`);
  if (kind === 'delay') return { kind, ...place, ms: amount };
  if (kind === 'mtu') return { kind, ...place, bytes: amount };
  return { kind, ...place, percent: amount };
}
