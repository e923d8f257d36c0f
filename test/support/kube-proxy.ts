/**
 * The rules that kube-proxy writes in its nftables mode (kubernetes, pkg/proxy/nftables/proxier.go): the same hooks,
 * priorities, sets, maps and chains, for a few services. tulle must carry what they do with packets.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { withNamespace } from '../../lib/sys/sys.ts';

export interface Service {
  name: string;
  clusterIp: string;
  protocol: 'tcp' | 'udp';
  port: number;
  nodePort?: number;
  endpoints: { address: string; port: number }[];
}

export const SERVICE_CIDR = '10.96.0.0/12';

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 8).toUpperCase();

/** The ruleset of one node. */
export function proxyRules(services: readonly Service[], clusterCidr: string, nodeIp: string): string {
  const nameOf = ({ name, protocol }: Service): string => `${hashOf(name)}-default/${name}/${protocol}/`;
  const endpointOf = (service: Service, { address, port }: Service['endpoints'][0]): string =>
    `endpoint-${hashOf(`${service.name}${address}`)}-default/${service.name}/${service.protocol}/__${address}/${port}`;
  const withEndpoints = services.filter(service => service.endpoints.length > 0);
  const without = services.filter(service => service.endpoints.length === 0);
  const elements = (lines: string[]): string => (lines.length === 0 ? '' : `elements = { ${lines.join(', ')} }`);
  const ipElement = ({ clusterIp, protocol, port }: Service, verdict: string): string =>
    `${clusterIp} . ${protocol} . ${port} : ${verdict}`;
  const exposed = services.filter(service => service.nodePort !== undefined);

  const serviceChains = withEndpoints.map(service => {
    const { clusterIp, protocol, port, endpoints } = service;
    const picks = endpoints.map((endpoint, i) => `${i} : goto ${endpointOf(service, endpoint)}`).join(', ');
    return `
      ${endpoints
        .map(
          endpoint => `
      chain ${endpointOf(service, endpoint)} {
        ip saddr ${endpoint.address} jump mark-for-masquerade
        meta l4proto ${protocol} dnat to ${endpoint.address}:${endpoint.port}
      }`,
        )
        .join('')}
      chain service-${nameOf(service)} {
        ip daddr ${clusterIp} ${protocol} dport ${port} ip saddr != ${clusterCidr} jump mark-for-masquerade
        numgen random mod ${endpoints.length} vmap { ${picks} }
      }
      chain external-${nameOf(service)} {
        jump mark-for-masquerade
        goto service-${nameOf(service)}
      }`;
  });

  return `
    table ip kube-proxy {
      comment "rules for kube-proxy"
      set cluster-ips {
        type ipv4_addr
        comment "Active ClusterIPs"
        ${elements(services.map(service => service.clusterIp))}
      }
      set nodeport-ips {
        type ipv4_addr
        comment "IPs that accept NodePort traffic"
        elements = { ${nodeIp} }
      }
      chain mark-for-masquerade { meta mark set mark or 0x4000; }
      chain reject-chain { reject; }
      ${serviceChains.join('')}
      map no-endpoint-services {
        type ipv4_addr . inet_proto . inet_service : verdict
        comment "vmap to drop or reject packets to services with no endpoints"
        ${elements(without.map(service => ipElement(service, 'goto reject-chain')))}
      }
      map no-endpoint-nodeports {
        type inet_proto . inet_service : verdict
        comment "vmap to drop or reject packets to service nodeports with no endpoints"
      }
      map service-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
        comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
        ${elements(withEndpoints.map(service => ipElement(service, `goto service-${nameOf(service)}`)))}
      }
      map service-nodeports {
        type inet_proto . inet_service : verdict
        comment "NodePort traffic"
        ${elements(exposed.map(service => `${service.protocol} . ${service.nodePort} : goto external-${nameOf(service)}`))}
      }
      chain services {
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
      }
      chain masquerading {
        mark and 0x4000 == 0 return
        meta mark set mark xor 0x4000
        masquerade fully-random
      }
      chain cluster-ips-check {
        ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
        ip daddr { ${SERVICE_CIDR} } drop comment "Drop traffic to unallocated ClusterIPs"
      }
      chain nodeport-endpoints-check {
        ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
      }
      chain service-endpoints-check {
        ip daddr . meta l4proto . th dport vmap @no-endpoint-services
      }
      chain filter-input {
        type filter hook input priority -110; policy accept;
        ct state new jump nodeport-endpoints-check
        ct state new jump service-endpoints-check
      }
      chain filter-forward {
        type filter hook forward priority -110; policy accept;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
      }
      chain filter-output {
        type filter hook output priority -110; policy accept;
        ct state new jump service-endpoints-check
      }
      chain filter-output-post-dnat {
        type filter hook output priority -90; policy accept;
        ct state new jump cluster-ips-check
      }
      chain nat-prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        jump services
      }
      chain nat-output {
        type nat hook output priority -100; policy accept;
        jump services
      }
      chain nat-postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        jump masquerading
      }
    }
    `;
}

/** Loads a ruleset in a namespace. */
export function loadRules(nft: string, namespace: string, rules: string): void {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-proxy-'));
  const file = join(folder, 'rules.nft');
  try {
    writeFileSync(file, rules);
    withNamespace(namespace, () => execFileSync(nft, ['-f', file], { stdio: ['ignore', 'pipe', 'inherit'] }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
