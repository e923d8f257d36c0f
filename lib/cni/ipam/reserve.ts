/** One address of each range set for one attachment, as host-local gives them, and in its words when it cannot. */
import { CNI_ERROR, CniError } from '../plugin.ts';
import type { AttachmentStore } from '../store.ts';
import { formatIp, type IpNumber, parseIp } from './address.ts';
import type { Candidate, Pool } from './pool.ts';
import { type RangeSet, rangeFor } from './range.ts';

/** An address that is not reserved yet: AttachmentStore.begin does that. */
export interface Choice extends Candidate {
  /** with the subnet's prefix length */
  cidr: string;
  gateway: string;
}

/** Nothing is free in a set: 11 for the runtime, because pods go. */
export class ExhaustedError extends CniError {
  constructor(set: RangeSet, index: number) {
    super(
      CNI_ERROR.tryLater,
      `failed to allocate for range ${index}: no IP addresses available in range set: ${set.text}`,
    );
    this.name = 'ExhaustedError';
  }
}

/**
 * @param wanted addresses or CIDRs that the runtime asks for; each must be found in one of the sets
 * @throws CniError 7 for what cannot be given, ExhaustedError
 */
export function chooseAddresses(
  store: AttachmentStore,
  sets: readonly RangeSet[],
  wanted: readonly string[],
): Choice[] {
  const left = wanted.map(parseWanted);
  const chosen: Choice[] = [];
  try {
    for (const [i, set] of sets.entries()) {
      const pool = store.pool(set, i);
      const at = left.findIndex(ip => rangeFor(set, ip) !== undefined);
      chosen.push(at < 0 ? nextOf(pool, i) : requested(store, set, left.splice(at, 1)[0], i));
    }
    if (left.length > 0) {
      const texts = left.map(ip => formatIp(ip.family, ip.value));
      throw new CniError(CNI_ERROR.config, `failed to allocate all requested IPs: ${texts.join(' ')}`);
    }
    return chosen;
  } catch (error) {
    for (const choice of chosen) store.giveBack(choice);
    throw error;
  }
}

function parseWanted(text: string): IpNumber {
  const ip = parseIp(text.split('/')[0]);
  if (ip === undefined) throw new CniError(CNI_ERROR.config, `requested IP address ${text} is not an address`);
  return ip;
}

function nextOf(pool: Pool, index: number): Choice {
  const candidate = pool.next();
  if (candidate === undefined) throw new ExhaustedError(pool.set, index);
  return complete(candidate);
}

function requested(store: AttachmentStore, set: RangeSet, ip: IpNumber, index: number): Choice {
  const range = rangeFor(set, ip)!;
  const address = formatIp(ip.family, ip.value);
  const refuse = (why: string): CniError =>
    new CniError(CNI_ERROR.config, `failed to allocate for range ${index}: requested ${why}`);
  if (ip.value === range.gateway) throw refuse(`ip ${address} is subnet's gateway`);
  if (store.holderOf(address) !== undefined) {
    throw refuse(`IP address ${address} is not available in range set ${set.text}`);
  }
  return complete({ address, range });
}

function complete({ address, range }: Candidate): Choice {
  return {
    address,
    range,
    cidr: `${address}/${range.prefixLength}`,
    gateway: formatIp(range.family, range.gateway),
  };
}
