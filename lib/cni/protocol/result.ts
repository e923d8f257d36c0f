/**
 * Results in every version of CNI. Inside there is one shape, that of 1.1.0 (lib/cni/plugin.ts); here it becomes what a
 * caller of an older version expects, and a `prevResult` of any version becomes that shape.
 *
 *   0.1.0 0.2.0         {ip4: {ip, gateway, routes}, ip6: {…}, dns}    the first address of each family only
 *   0.3.0 0.3.1 0.4.0   {interfaces, ips: [{version, …}], routes, dns}
 *   1.0.0               no ips[].version
 *   1.1.0               interfaces: mtu, socketPath, pciID; routes: mtu, advmss, priority, table, scope
 *
 * Go's "omitempty" is kept: an empty list is left out; dns is there even when it is empty.
 */
import {
  CNI_ERROR,
  type CniDns,
  CniError,
  type CniInterface,
  type CniIp,
  type CniResult,
  type CniRoute,
  type CniVersion,
} from '../plugin.ts';
import { familyOf, isCidr, isIp } from './addresses.ts';
import type { Fields, JsonObject } from './fields.ts';
import { isAtLeast, isVersion } from './names.ts';

/** @throws CniError when a version before 0.3.0 is wanted and there is no address */
export function printResult(result: CniResult, version: CniVersion): JsonObject {
  return isAtLeast(version, '0.3.0') ? printNew(result, version) : printOld(result, version);
}

function printNew(result: CniResult, version: CniVersion): JsonObject {
  const newest = isAtLeast(version, '1.1.0');
  const interfaces = result.interfaces.map(({ name, mac, mtu, sandbox, socketPath, pciID }) => ({
    name,
    ...(mac && { mac }),
    ...(newest && mtu && { mtu }),
    ...(sandbox && { sandbox }),
    ...(newest && socketPath && { socketPath }),
    ...(newest && pciID && { pciID }),
  }));
  const ips = result.ips.map(({ address, gateway, interface: index }) => ({
    ...(!isAtLeast(version, '1.0.0') && { version: String(familyOf(address)) }),
    ...(index !== undefined && { interface: index }),
    address,
    ...(gateway && { gateway }),
  }));
  const routes = result.routes.map(route => printRoute(route, newest));
  return {
    cniVersion: version,
    ...(interfaces.length > 0 && { interfaces }),
    ...(ips.length > 0 && { ips }),
    ...(routes.length > 0 && { routes }),
    dns: printDns(result.dns),
  };
}

function printRoute({ dst, gw, mtu, advmss, priority, table, scope }: CniRoute, newest: boolean): JsonObject {
  return {
    dst,
    ...(gw && { gw }),
    ...(newest && mtu && { mtu }),
    ...(newest && advmss && { advmss }),
    ...(newest && priority && { priority }),
    ...(newest && table !== undefined && { table }),
    ...(newest && scope !== undefined && { scope }),
  };
}

function printOld({ ips, routes, dns }: CniResult, version: CniVersion): JsonObject {
  const family = (wanted: 4 | 6): JsonObject | undefined => {
    const first = ips.find(({ address }) => familyOf(address) === wanted);
    if (first === undefined) return undefined;
    const own = routes.filter(({ dst }) => familyOf(dst) === wanted).map(route => printRoute(route, false));
    return {
      ip: first.address,
      ...(first.gateway && { gateway: first.gateway }),
      ...(own.length > 0 && { routes: own }),
    };
  };
  const [ip4, ip6] = [family(4), family(6)];
  if (ip4 === undefined && ip6 === undefined) {
    throw new CniError(
      CNI_ERROR.internal,
      `cannot convert: no valid IP addresses: a result of version ${version} needs one`,
    );
  }
  return { cniVersion: version, ...(ip4 && { ip4 }), ...(ip6 && { ip6 }), dns: printDns(dns) };
}

function printDns({ nameservers, domain, search, options }: CniDns): JsonObject {
  return {
    ...(nameservers?.length && { nameservers }),
    ...(domain && { domain }),
    ...(search?.length && { search }),
    ...(options?.length && { options }),
  };
}

/**
 * A result that another plugin, or an earlier ADD of ours, has printed. Its own cniVersion counts; where it has none,
 * the configuration's does.
 * @throws CniError 6 where `fields` is strict
 */
export function readResult(fields: Fields, configVersion: CniVersion): CniResult {
  const text = fields.filled('cniVersion');
  if (text !== undefined && !isVersion(text))
    fields.refuse('cniVersion', text, 'not a version of CNI', CNI_ERROR.decode);
  const version = isVersion(text) ? text : configVersion;
  return isAtLeast(version, '0.3.0') ? readNew(fields) : readOld(fields);
}

function readNew(fields: Fields): CniResult {
  const dns = fields.object('dns');
  return {
    interfaces: fields.objects('interfaces').map(readInterface),
    ips: fields.objects('ips').flatMap(inner => readIp(inner) ?? []),
    routes: fields.objects('routes').flatMap(inner => readRoute(inner) ?? []),
    dns: dns === undefined ? {} : readDns(dns),
  };
}

function readInterface(fields: Fields): CniInterface {
  const result: CniInterface = { name: fields.text('name') ?? '' };
  for (const key of ['mac', 'sandbox', 'socketPath', 'pciID'] as const) {
    const text = fields.filled(key);
    if (text !== undefined) result[key] = text;
  }
  const mtu = fields.integer('mtu', 0, 2 ** 31 - 1);
  if (mtu) result.mtu = mtu;
  return result;
}

function readIp(fields: Fields): CniIp | undefined {
  const address = needed(fields, 'address');
  if (address === undefined) return undefined;
  const gateway = fields.checked('gateway', isIp, 'an IP address', CNI_ERROR.decode);
  const index = fields.integer('interface', -1, 2 ** 31 - 1);
  return {
    address,
    ...(gateway !== undefined && { gateway }),
    ...(index !== undefined && index >= 0 && { interface: index }),
  };
}

/** Of results and of `ipam.routes`. */
export function readRoute(fields: Fields): CniRoute | undefined {
  const dst = needed(fields, 'dst');
  if (dst === undefined) return undefined;
  const gw = fields.checked('gw', isIp, 'an IP address', CNI_ERROR.decode);
  const route: CniRoute = { dst, ...(gw !== undefined && { gw }) };
  for (const key of ['mtu', 'advmss', 'priority', 'table', 'scope'] as const) {
    const value = fields.integer(key, 0, key === 'table' ? 2 ** 32 - 1 : 2 ** 31 - 1);
    if (value !== undefined) route[key] = value;
  }
  return route;
}

/** A CIDR that must be there. */
function needed(fields: Fields, key: string): string | undefined {
  if (!fields.filled(key) && (fields.value(key) === undefined || fields.value(key) === '')) {
    return fields.refuse(key, '', 'it must be an address like 10.5.1.0/24', CNI_ERROR.decode);
  }
  return fields.checked(key, isCidr, 'an address like 10.5.1.0/24', CNI_ERROR.decode);
}

export function readDns(fields: Fields): CniDns {
  const dns: CniDns = {};
  for (const key of ['nameservers', 'search', 'options'] as const) {
    const texts = fields.texts(key);
    if (texts.length > 0) dns[key] = texts;
  }
  const domain = fields.filled('domain');
  if (domain !== undefined) dns.domain = domain;
  return dns;
}

/** A prevResult of before 0.3.0. */
function readOld(fields: Fields): CniResult {
  const result: CniResult = { interfaces: [], ips: [], routes: [], dns: {} };
  for (const key of ['ip4', 'ip6']) {
    const family = fields.object(key);
    if (family === undefined) continue;
    const address = needed(family, 'ip');
    const gateway = family.checked('gateway', isIp, 'an IP address', CNI_ERROR.decode);
    if (address !== undefined) result.ips.push({ address, ...(gateway !== undefined && { gateway }) });
    result.routes.push(...family.objects('routes').flatMap(inner => readRoute(inner) ?? []));
  }
  const dns = fields.object('dns');
  if (dns !== undefined) result.dns = readDns(dns);
  return result;
}
