/** ipam.resolvConf: the DNS settings of a resolv.conf(5), as host-local reads it (dns.go). */
import { readFileSync } from 'node:fs';
import { messageOf } from '../../util/errors.ts';
import { CNI_ERROR, type CniDns, CniError } from '../plugin.ts';

/** @throws CniError 5 */
export function readResolvConf(path: string): CniDns {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new CniError(CNI_ERROR.io, `ipam.resolvConf: cannot read ${path}: ${messageOf(error)}`, { cause: error });
  }
}

export function parseResolvConf(text: string): CniDns {
  const dns: CniDns = {};
  for (const line of text.split('\n')) {
    if (line.startsWith('#') || line.startsWith(';')) continue;
    const [keyword, ...values] = line.trim().split(/\s+/);
    if (values.length === 0) continue;
    switch (keyword) {
      case 'nameserver':
        dns.nameservers = [...(dns.nameservers ?? []), values[0]];
        break;
      case 'domain':
        dns.domain = values[0];
        break;
      case 'search':
        dns.search = [...(dns.search ?? []), ...values];
        break;
      case 'options':
        dns.options = [...(dns.options ?? []), ...values];
        break;
    }
  }
  return dns;
}
