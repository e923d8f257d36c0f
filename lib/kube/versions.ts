// Kubernetes' resource versions as the numbers that the lease rules compare.
//
// A resource version is a text that a client passes back as it came; that it is a decimal number which grows was always so
// and is promised since Kubernetes 1.35. Two things are made of it here:
// - The create revision of a lease is its tenure (node.ts), 32 bits that are no version. So that a lease is never written
//   "before" it was made, versions are counted from 2^32.
// - A cluster that was restored from a backup counts from an older number. Whatever was true before is in doubt then, and what
//   comes is newer all the same: the numbers go on where they were.
import { RegistryError } from '../lease/registry.ts';

const firstRevision = 2 ** 32;

export interface Versions {
  /** Throws RegistryError 'unavailable' for a text that is no version. */
  revisionOf(version: string): number;
  /** Whether a version that the server names now is older than one that it named before. */
  isOlder(version: string): boolean;
  /** The version of a list that reads the present: the one moment at which a step back shows. True when it did. */
  atPresent(version: string): boolean;
}

export function createVersions(): Versions {
  let offset = firstRevision;
  let highest = 0;
  const numberOf = (version: string): number => {
    const number = /^[0-9]{1,15}$/.test(version) ? Number(version) : Number.NaN;
    if (Number.isSafeInteger(number)) return number;
    const shown = JSON.stringify(version).slice(0, 60);
    throw new RegistryError('unavailable', `the API server answers nonsense: the resource version ${shown}`);
  };
  return {
    revisionOf(version) {
      const number = numberOf(version);
      highest = Math.max(highest, number);
      return offset + number;
    },
    isOlder: version => numberOf(version) < highest,
    atPresent(version) {
      const number = numberOf(version);
      const steppedBack = number < highest;
      if (steppedBack) offset += highest - number + 1;
      highest = number;
      return steppedBack;
    },
  };
}
