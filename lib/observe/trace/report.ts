/**
 * What nodes tell each other about a traced packet: its sender asks with its number (VERB_TRACED), its receiver has kept what
 * became of the last few. Only who sent a packet is told about it. Whose lease key is stale could not ask: it gets a notice.
 */
import { DROP_REASONS, type DropReason } from '../../datapath/counters.ts';
import { plain } from '../node-messages.ts';

export interface Traced {
  id: number;
  drop: DropReason | undefined;
  length: number;
  ttl: number;
}

const KEPT = 256;
const LONGEST_NAME = 128;

/** The traced packets that came last, oldest forgotten first. */
export class TracedLog {
  readonly #entries = new Map<string, Traced>();

  add(subnet: number, traced: Traced): void {
    this.#entries.set(`${subnet} ${traced.id}`, traced);
    if (this.#entries.size <= KEPT) return;
    const [oldest] = this.#entries.keys();
    this.#entries.delete(oldest);
  }

  /** The answer to a question of the node with this subnet; `about`: what this node adds. */
  answer(subnet: number, question: unknown, about: { node: string; device: string; link: string | undefined }): object {
    const id = typeof question === 'object' && question !== null && 'id' in question ? question.id : undefined;
    const traced = typeof id === 'number' ? this.#entries.get(`${subnet} ${id}`) : undefined;
    if (traced === undefined) return { seen: false };
    const { drop, length, ttl } = traced;
    return { seen: true, drop: drop ?? null, length, ttl, ...about, link: about.link ?? null };
  }
}

/** What a notice about a traced packet says: its receiver refused it before it could be asked. */
export function parseNotice(value: unknown): DropReason | undefined {
  const drop = typeof value === 'object' && value !== null && 'drop' in value ? value.drop : undefined;
  return isReason(drop) && drop.startsWith('ingress-') ? drop : undefined;
}

/** A report of the far node, checked: what comes from there is hostile. undefined: it is none. */
export function parseReport(value: unknown):
  | { seen: false }
  | {
      seen: true;
      drop: DropReason | undefined;
      length: number;
      ttl: number;
      node: string;
      device: string;
      link: string | undefined;
    }
  | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { seen, drop, length, ttl, node, device, link } = value as Record<string, unknown>;
  if (seen === false) return { seen };
  if (seen !== true || !isCount(length, 65_575) || !isCount(ttl, 255)) return undefined;
  if (drop !== null && !isReason(drop)) return undefined;
  const [nodeText, deviceText, linkText] = [nameOf(node), nameOf(device), nameOf(link)];
  if (nodeText === undefined || deviceText === undefined) return undefined;
  return {
    seen,
    drop: drop ?? undefined,
    length,
    ttl,
    node: nodeText,
    device: deviceText,
    link: linkText,
  };
}

const isReason = (value: unknown): value is DropReason =>
  typeof value === 'string' && Object.hasOwn(DROP_REASONS, value);

const isCount = (value: unknown, most: number): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most;

const nameOf = (value: unknown): string | undefined =>
  typeof value === 'string' ? plain(value).slice(0, LONGEST_NAME) : undefined;
