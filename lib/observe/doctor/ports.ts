/** Who has a UDP port: /proc/net/udp says which sockets there are, /proc/PID/fd whose they are. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { formatAddress6 } from '../../wire/address6.ts';
import type { PortHolder } from './facts.ts';

export interface UdpSocket {
  address: string;
  port: number;
  inode: string;
}

/** The rows of /proc/net/udp or udp6 (Documentation/networking/proc_net_tcp.rst); what is no row is skipped. */
export function parseUdpTable(text: string): UdpSocket[] {
  return text.split('\n').flatMap(line => {
    const [, local, , , , , , , , inode] = line.trim().split(/\s+/);
    const match = /^([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})$/.exec(local ?? '');
    if (match === null || !/^\d+$/.test(inode ?? '')) return [];
    const [, address, port] = match;
    // Each word of four bytes is in the machine's order: little-endian.
    return [{ address: printAddress(address), port: Number.parseInt(port, 16), inode }];
  });
}

function printAddress(hex: string): string {
  const words = hex.match(/.{8}/g) ?? [];
  const bytes = words.flatMap(word => (word.match(/../g) ?? []).reverse().map(byte => Number.parseInt(byte, 16)));
  return bytes.length === 4 ? bytes.join('.') : formatAddress6(Uint8Array.from(bytes));
}

/** Everybody in this network namespace who has the port, but for the process that may. */
export function findPortHolders(port: number, allowedPid: number | undefined): PortHolder[] {
  const sockets = ['udp', 'udp6'].flatMap(table => parseUdpTable(read(`/proc/self/net/${table}`)));
  const found = sockets.filter(socket => socket.port === port);
  if (found.length === 0) return [];
  const owners = ownersOf(new Set(found.map(({ inode }) => inode)));
  return found.flatMap(({ address, inode }) => {
    const pid = owners.get(inode);
    if (pid !== undefined && pid === allowedPid) return [];
    return [
      { address, port, pid, name: pid === undefined ? undefined : read(`/proc/${pid}/comm`).trim() || undefined },
    ];
  });
}

/** inode → pid, of the processes whose descriptors we may look at. */
function ownersOf(inodes: ReadonlySet<string>): Map<string, number> {
  const owners = new Map<string, number>();
  for (const pid of list('/proc').filter(name => /^\d+$/.test(name))) {
    for (const fd of list(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(link(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode !== undefined && inodes.has(inode)) owners.set(inode, Number(pid));
    }
  }
  return owners;
}

// Processes end while they are looked at, and others are not ours to look at.

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
