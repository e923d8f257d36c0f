/** The names that CNI knows, by the rules of libcni's pkg/utils (utils.go). Each check throws a CniError. */
import { CNI_ERROR, CNI_VERSIONS, CniError, type CniVersion } from '../plugin.ts';
import { excerpt } from './fields.ts';

const ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
/** IFNAMSIZ of linux/if.h, without the closing zero. */
const LONGEST_INTERFACE = 15;

export function checkNetworkName(name: unknown): asserts name is string {
  if (name === undefined || name === null || name === '') {
    throw new CniError(CNI_ERROR.config, 'missing network name: name');
  }
  if (typeof name !== 'string') throw new CniError(CNI_ERROR.decode, `name: ${excerpt(name)}: it must be a string`);
  if (!ID.test(name)) {
    throw new CniError(CNI_ERROR.config, `invalid characters found in network name: name ${excerpt(name)}`);
  }
}

export function checkContainerId(id: string): void {
  if (ID.test(id)) return;
  throw new CniError(CNI_ERROR.environment, `invalid characters in containerID: CNI_CONTAINERID ${excerpt(id)}`);
}

export function checkInterfaceName(name: string): void {
  const problem = interfaceProblem(name);
  if (problem !== undefined) throw new CniError(CNI_ERROR.environment, `${problem}: CNI_IFNAME ${excerpt(name)}`);
}

function interfaceProblem(name: string): string | undefined {
  if (name === '') return 'interface name is empty';
  if (Buffer.byteLength(name) > LONGEST_INTERFACE) return 'interface name is too long';
  if (name === '.' || name === '..') return 'interface name is . or ..';
  // Go's unicode.IsSpace: JavaScript's \s without U+FEFF, and with U+0085.
  if (/[/:\u0085]|(?!\uFEFF)\s/u.test(name)) return 'interface name contains / or : or whitespace characters';
  return undefined;
}

/** The version that a configuration speaks: 0.1.0 where it names none. Only exact matches count, as in libcni. */
export function checkVersion(value: unknown): CniVersion {
  if (value === undefined || value === null || value === '') return CNI_VERSIONS[0];
  if (typeof value !== 'string') {
    throw new CniError(CNI_ERROR.decode, `cniVersion: ${excerpt(value)}: it must be a string`);
  }
  if (isVersion(value)) return value;
  const supported = CNI_VERSIONS.map(version => `"${version}"`).join(' ');
  throw new CniError(CNI_ERROR.version, `incompatible CNI versions: cniVersion ${excerpt(value)}`, {
    details: `config is ${excerpt(value)}, plugin supports [${supported}]`,
  });
}

export function isVersion(text: unknown): text is CniVersion {
  return CNI_VERSIONS.some(version => version === text);
}

/** Whether `version` is `other` or newer. */
export function isAtLeast(version: CniVersion, other: CniVersion): boolean {
  return CNI_VERSIONS.indexOf(version) >= CNI_VERSIONS.indexOf(other);
}
