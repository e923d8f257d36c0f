// The network configuration that a registry holds: flannel's net-conf JSON with flannel's rules and defaults
// (pkg/subnet/config.go: ParseConfig, CheckNetworkConfig). Where flannel accepts what can only fail later, we say so here.

import { messageOf, TulleError } from '../util/errors.ts';
import { formatCidr4, formatCidr6, hasHostBits, hasHostBits6, parseCidr4, parseCidr6 } from '../wire/cidr.ts';
import { formatAddress4 } from '../wire/ip4.ts';
import type { LeaseSubnets, Subnet4, Subnet6 } from './lease.ts';

/** Addresses are unsigned 32-bit numbers (IPv4) or bigints (IPv6). The IPv4 fields are all 0 when enableIPv4 is false. */
export interface NetworkConfig {
  enableIPv4: boolean;
  network: Subnet4;
  subnetLength: number;
  /** Network addresses of the first and the last subnet that may be leased. */
  subnetMin: number;
  subnetMax: number;
  enableIPv6: boolean;
  /** Present exactly when enableIPv6 is true, like the three fields below. */
  network6?: Subnet6;
  subnetLength6?: number;
  subnetMin6?: bigint;
  subnetMax6?: bigint;
  /** "udp" when the net-conf has no Backend, as in flannel's code. */
  backendType: string;
  /** The Backend object as written; look its keys up with `fieldOf`. */
  backend: Record<string, unknown>;
  enableNFTables: boolean;
}

/** The most subnets that the route table can index. */
export const maximumSubnets = 2 ** 20;

/**
 * Reads net-conf JSON. Throws TulleError 'bad-config', one line that names the field, its value and what is allowed.
 * Unknown keys are ignored, as flannel does.
 */
export function parseNetworkConfig(text: string): NetworkConfig {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw bad(`the network configuration is not JSON (${messageOf(error)}): ${example}`, error);
  }
  if (!isObject(json)) throw bad(`the network configuration is not a JSON object: ${example}`);

  const enableIPv4 = booleanField(json, 'EnableIPv4', true);
  const enableIPv6 = booleanField(json, 'EnableIPv6', false);
  if (!enableIPv4 && !enableIPv6) throw bad('EnableIPv4 and EnableIPv6 are both false: one of them must be true');
  const four = enableIPv4 ? checkFamily(json, family4) : undefined;
  const six = enableIPv6 ? checkFamily(json, family6) : undefined;
  return {
    enableIPv4,
    network: { address: Number(four?.network ?? 0), prefixLength: four?.networkLength ?? 0 },
    subnetLength: four?.subnetLength ?? 0,
    subnetMin: Number(four?.min ?? 0),
    subnetMax: Number(four?.max ?? 0),
    enableIPv6,
    ...(six && {
      network6: { address: six.network, prefixLength: six.networkLength },
      subnetLength6: six.subnetLength,
      subnetMin6: six.min,
      subnetMax6: six.max,
    }),
    ...backendOf(json),
    enableNFTables: booleanField(json, 'EnableNFTables', false),
  };
}

/**
 * Refuses a network of more subnets than the route table can index: TulleError 'bad-config'. Only a backend with a
 * route table of ours needs this.
 */
export function checkSubnetCount(config: NetworkConfig): void {
  const { enableIPv4, network, subnetLength, network6, subnetLength6 } = config;
  if (enableIPv4) checkCount('SubnetLen', subnetLength, 'Network', formatCidr4(network), network.prefixLength);
  if (network6 !== undefined && subnetLength6 !== undefined) {
    checkCount('IPv6SubnetLen', subnetLength6, 'IPv6Network', formatCidr6(network6), network6.prefixLength);
  }
}

function checkCount(key: string, length: number, networkKey: string, network: string, prefixLength: number): void {
  const count = 2 ** (length - prefixLength);
  if (count <= maximumSubnets) return;
  throw bad(
    `${key} ${length} cuts ${networkKey} ${network} into ${count} subnets and ${maximumSubnets} is the most: ` +
      `set ${key} to ${prefixLength + Math.log2(maximumSubnets)} or less`,
  );
}

/** Whether a lease lies in the range of this configuration and has its subnet lengths. */
export function fitsConfig(config: NetworkConfig, { subnet, subnet6 }: LeaseSubnets): boolean {
  const fits6 = config.enableIPv6 ? fitsConfig6(config, subnet6) : subnet6 === undefined;
  return fits6 && fitsConfig4(config, subnet);
}

/** The IPv4 part of it. */
export function fitsConfig4(config: NetworkConfig, subnet: Subnet4 | undefined): boolean {
  if (subnet === undefined) return false;
  if (!config.enableIPv4) return subnet.prefixLength === 0 && subnet.address === 0;
  const { subnetMin, subnetMax, subnetLength } = config;
  return (
    subnet.prefixLength === subnetLength &&
    subnet.address >= subnetMin &&
    subnet.address <= subnetMax &&
    !hasHostBits(subnet)
  );
}

/** The IPv6 part of it; false in a network without IPv6. */
export function fitsConfig6(config: NetworkConfig, subnet6: Subnet6 | undefined): boolean {
  const { subnetMin6, subnetMax6, subnetLength6 } = config;
  if (subnet6 === undefined || subnetMin6 === undefined || subnetMax6 === undefined) return false;
  return (
    subnet6.prefixLength === subnetLength6 &&
    subnet6.address >= subnetMin6 &&
    subnet6.address <= subnetMax6 &&
    !hasHostBits6(subnet6)
  );
}

/**
 * The value of a key whose case does not matter, as Go's encoding/json reads it: an exact match and a folded one are
 * the same field, the later one in the text counts, and null leaves the default.
 */
export function fieldOf(object: Readonly<Record<string, unknown>>, name: string): unknown {
  let value: unknown;
  const folded = name.toLowerCase();
  for (const [key, given] of Object.entries(object)) {
    if (key.toLowerCase() === folded && given !== null) value = given;
  }
  return value;
}

const example = 'write at least {"Network": "10.5.0.0/16"}';

/** What differs between the two families; addresses are bigints here so that the rules stand only once. */
interface Family {
  network: string;
  length: string;
  min: string;
  max: string;
  bits: number;
  defaultLength: number;
  sample: string;
  parse(text: string): { address: bigint; prefixLength: number } | undefined;
  format(address: bigint): string;
}

const family4: Family = {
  network: 'Network',
  length: 'SubnetLen',
  min: 'SubnetMin',
  max: 'SubnetMax',
  bits: 32,
  defaultLength: 24,
  sample: '10.5.0.0/16',
  parse(text) {
    const cidr = parseCidr4(text);
    return cidr && { address: BigInt(cidr.address), prefixLength: cidr.prefixLength };
  },
  format: address => formatAddress4(Number(address)),
};

const family6: Family = {
  network: 'IPv6Network',
  length: 'IPv6SubnetLen',
  min: 'IPv6SubnetMin',
  max: 'IPv6SubnetMax',
  bits: 128,
  defaultLength: 64,
  sample: 'fd00:5::/48',
  parse: parseCidr6,
  format: address => formatCidr6({ address, prefixLength: 128 }).replace('/128', ''),
};

function checkFamily(json: Record<string, unknown>, family: Family) {
  const { address: network, prefixLength: networkLength } = networkField(json, family);
  const subnetLength = subnetLengthField(json, family, networkLength);
  const subnetSize = 1n << BigInt(family.bits - subnetLength);
  const end = network + (1n << BigInt(family.bits - networkLength));

  const boundary = (name: string, fallback: bigint): bigint => {
    const address = addressField(json, family, name) ?? fallback;
    const range = `${family.format(network)}/${networkLength}`;
    if (address < network || address >= end) {
      throw bad(`${name} ${family.format(address)} is not in ${family.network} ${range}: choose an address inside it`);
    }
    if (address % subnetSize !== 0n) {
      const below = family.format(address - (address % subnetSize));
      throw bad(
        `${name} ${family.format(address)} is not the first address of a /${subnetLength} subnet: ${below} would be`,
      );
    }
    return address;
  };
  // The first subnet is skipped: its addresses are easily taken for those of the whole network.
  const min = boundary(family.min, network + subnetSize);
  const max = boundary(family.max, end - subnetSize);
  if (min > max) {
    throw bad(
      `${family.min} ${family.format(min)} is above ${family.max} ${family.format(max)}: no subnet is left to lease`,
    );
  }
  return { network, networkLength, subnetLength, min, max };
}

function networkField(json: Record<string, unknown>, { network: name, bits, sample, parse }: Family) {
  const value = fieldOf(json, name);
  if (value === undefined) throw bad(`${name} is missing: write for example "${name}": "${sample}"`);
  const cidr = typeof value === 'string' ? parse(value) : undefined;
  if (cidr === undefined) throw bad(`${name} ${print(value)} is not a network: write for example "${sample}"`);
  const host = BigInt(bits - cidr.prefixLength);
  const address = (cidr.address >> host) << host; // flannel, too, cuts what lies below the prefix
  if (address === 0n && cidr.prefixLength === 0) {
    throw bad(`${name} ${print(value)} is everything there is: write for example "${sample}"`);
  }
  return { address, prefixLength: cidr.prefixLength };
}

/** Each subnet needs four addresses and the network four subnets, of which the first is not used. */
function subnetLengthField(json: Record<string, unknown>, family: Family, networkLength: number): number {
  const { length: name, network, bits, defaultLength } = family;
  const longest = bits - 2;
  const value = fieldOf(json, name) ?? 0;
  if (networkLength > longest - 2) {
    throw bad(
      `${network} is a /${networkLength}, which is too small: a /${longest - 2} is the smallest that can be cut into subnets`,
    );
  }
  if (value === 0) return networkLength <= defaultLength - 2 ? defaultLength : networkLength + 2;
  const shortest = networkLength + 2;
  if (typeof value === 'number' && Number.isInteger(value) && value >= shortest && value <= longest) return value;
  throw bad(
    `${name} ${print(value)} does not fit a ${network} of /${networkLength}: a number from ${shortest} to ${longest} is allowed`,
  );
}

/** The unspecified address means "not set", as in flannel. */
function addressField(json: Record<string, unknown>, family: Family, name: string): bigint | undefined {
  const value = fieldOf(json, name);
  if (value === undefined || value === '') return undefined;
  const address = typeof value === 'string' ? family.parse(`${value}/${family.bits}`)?.address : undefined;
  if (address === undefined)
    throw bad(`${name} ${print(value)} is not an address: write for example "${family.sample.split('/')[0]}"`);
  return address === 0n ? undefined : address;
}

function booleanField(json: Record<string, unknown>, name: string, fallback: boolean): boolean {
  const value = fieldOf(json, name);
  if (value === undefined) return fallback;
  if (typeof value !== 'boolean') throw bad(`${name} is ${print(value)}: true or false is allowed, without quotes`);
  return value;
}

function backendOf(json: Record<string, unknown>): { backendType: string; backend: Record<string, unknown> } {
  const backend = fieldOf(json, 'Backend');
  if (backend === undefined) return { backendType: 'udp', backend: {} };
  if (!isObject(backend)) throw bad(`Backend is ${print(backend)}: an object is allowed, for example {"Type": "udp"}`);
  const type = fieldOf(backend, 'Type');
  if (typeof type !== 'string' || type === '') {
    throw bad(
      `Backend.Type is ${type === undefined ? 'missing' : print(type)}: write a name, for example {"Type": "udp"}`,
    );
  }
  return { backendType: type, backend };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value as it stands in JSON, short enough for a line. */
function print(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}

function bad(message: string, cause?: unknown): TulleError {
  return new TulleError('bad-config', message, cause === undefined ? undefined : { cause });
}
