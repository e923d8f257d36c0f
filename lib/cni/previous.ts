/** In a chain: what the plugins before this one have made is passed on, in front of what this one made. */
import type { CniDns, CniResult } from './plugin.ts';

export function appendTo(previous: CniResult | undefined, own: CniResult): CniResult {
  if (previous === undefined) return own;
  const first = previous.interfaces.length;
  return {
    interfaces: [...previous.interfaces, ...own.interfaces],
    ips: [
      ...previous.ips,
      ...own.ips.map(ip => (ip.interface === undefined ? ip : { ...ip, interface: first + ip.interface })),
    ],
    routes: [...previous.routes, ...own.routes],
    dns: appendDns(previous.dns, own.dns),
  };
}

function appendDns(previous: CniDns, own: CniDns): CniDns {
  const joined: CniDns = { ...previous, ...own };
  for (const key of ['nameservers', 'search', 'options'] as const) {
    const all = new Set([...(previous[key] ?? []), ...(own[key] ?? [])]);
    if (all.size > 0) joined[key] = [...all];
  }
  return joined;
}

/** Of a result: the addresses of the container's own interface, not those that other plugins gave to others. */
export const ownIps = ({ interfaces, ips }: CniResult, ifname: string): CniResult['ips'] =>
  ips.filter(({ interface: index }) => {
    const link = index === undefined ? undefined : interfaces[index];
    return link === undefined || (link.name === ifname && link.sandbox !== undefined);
  });
