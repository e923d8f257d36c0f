/** A pod on a node of overlays.ts: a namespace, a veth, addresses and routes; and processes in it whose outcome is told. */
import { spawn } from 'node:child_process';
import { setSysctl } from '../../lib/host/sysctl.ts';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { close, openRaw, rawReceive, rawSend, withNamespace } from '../../lib/sys/sys.ts';
import { emitEcho6, ICMP6_ECHO_REPLY, ICMP6_ECHO_REQUEST } from '../../lib/wire/icmp.ts';

export interface PodOptions {
  /** The node's namespace and the pod's file. */
  node: string;
  path: string;
  /** The pod's address and the node's on their veth, with prefix lengths. */
  addresses: { pod: string; node: string }[];
  mtu?: number;
}

/** Makes the pod; the node forwards from then on. It is gone when its namespace is removed. */
export function makePod({ node, path, addresses, mtu = 1460 }: PodOptions): void {
  makeNamespace(path);
  setSysctl(node, 'net.ipv4.ip_forward', 1);
  setSysctl(node, 'net.ipv6.conf.all.forwarding', 1);
  withRtnetlink(node, netlink => {
    netlink.createVeth({ name: 'pod0', peerName: 'eth0', peerNamespace: path, mtu });
    for (const { node: address } of addresses) netlink.addAddress('pod0', address, { nodad: true });
    netlink.setLink('pod0', { up: true });
  });
  withRtnetlink(path, netlink => {
    for (const { pod } of addresses) netlink.addAddress('eth0', pod, { nodad: true });
    netlink.setLink('eth0', { up: true });
    for (const { node: address } of addresses) {
      const gateway = address.split('/')[0];
      netlink.addRoute({ destination: gateway.includes(':') ? '::/0' : 'default', gateway });
    }
  });
}

/** Runs a program of Node.js in the namespace and gives what it printed; it is stopped after a deadline. */
export function runIn(namespace: string, program: string, deadlineMs = 20_000): Promise<string> {
  const child = withNamespace(namespace, () =>
    spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] }),
  );
  const timer = setTimeout(() => child.kill('SIGKILL'), deadlineMs);
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  return new Promise(resolve => {
    child.on('close', () => {
      clearTimeout(timer);
      resolve(output.trim());
    });
  });
}

/** The outcome of a TCP connect in the namespace: "connected" or the error's code. Without an answer: "". */
export const connectFrom = (namespace: string, address: string, port: number, localAddress?: string): Promise<string> =>
  runIn(
    namespace,
    `const s = require('net').connect(${JSON.stringify({ host: address, port, localAddress })});
     s.on('connect', () => { console.log('connected'); s.destroy(); });
     s.on('error', e => console.log(e.code));`,
  );

/** Sends one UDP datagram from the namespace with this TTL; gives "sent" or the error's code. */
export const sendFrom = (namespace: string, address: string, options: { ttl?: number; bytes?: number } = {}) =>
  runIn(
    namespace,
    `const s = require('dgram').createSocket('udp${address.includes(':') ? 6 : 4}');
     s.bind(0, () => {
       ${options.ttl === undefined ? '' : `s.setTTL(${options.ttl});`}
       s.send(Buffer.alloc(${options.bytes ?? 20}), 33434, '${address}', e => { console.log(e ? e.code : 'sent'); s.close(); });
     });`,
  );

export interface Heard {
  from: string;
  type: number;
  code: number;
  /** Bytes 4 to 7 of the message. */
  rest: number;
  /** The quoted packet. */
  quoted: Uint8Array;
}

/** The ICMP errors that reach a namespace, as a process with a raw socket there sees them. */
export function hearErrors(
  namespace: string,
  family: 4 | 6 = 4,
): { next(): Promise<Heard | undefined>; close(): void } {
  const handle = openRaw({ family, protocol: family === 4 ? 1 : 58, namespace });
  const packet = new Uint8Array(2048);
  return {
    async next() {
      for (let waited = 0; waited < 5_000; waited += 20) {
        const got = rawReceive(handle, packet, 20);
        if (got === undefined) {
          await new Promise(resolve => setImmediate(resolve));
          continue;
        }
        const start = family === 4 ? (packet[0] & 15) * 4 : 0;
        const type = packet[start];
        const isError = family === 4 ? type === 3 || type === 11 : type < 128;
        if (!isError) continue;
        const rest = new DataView(packet.buffer).getUint32(start + 4);
        return { from: got.address, type, code: packet[start + 1], rest, quoted: packet.slice(start + 8, got.bytes) };
      }
      return undefined;
    },
    close: () => close(handle),
  };
}

/** Sends bytes by TCP from one namespace to an address of another and compares hashes: "whole", or what went wrong. */
export async function transfer(from: string, to: string, host: string, bytes: number): Promise<string> {
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const server = runIn(
    to,
    `const hash = require('crypto').createHash('sha256');
     const s = require('net').createServer(c => {
       c.on('data', d => hash.update(d));
       c.on('end', () => { console.log(hash.digest('hex')); c.end(); s.close(); });
     }).listen(${port}, '${host}');`,
  );
  const client = runIn(
    from,
    `const crypto = require('crypto'), hash = crypto.createHash('sha256');
     const data = crypto.randomBytes(1 << 20);
     let left = ${bytes}, tries = 0;
     (function connect() {
       const s = require('net').connect(${port}, '${host}');
       s.on('error', e => tries++ < 200 && e.code === 'ECONNREFUSED' ? setTimeout(connect, 20) : console.log(e.code));
       s.on('connect', function push() {
         while (left > 0) {
           const part = data.subarray(0, Math.min(left, data.length));
           left -= part.length;
           hash.update(part);
           if (!s.write(part)) return s.once('drain', push);
         }
         s.end();
         console.log(hash.digest('hex'));
       });
       s.resume();
     })();`,
  );
  const [sent, got] = await Promise.all([client, server]);
  return sent === got && sent.length === 64 ? 'whole' : `sent ${sent || 'nothing'}, got ${got || 'nothing'}`;
}

/** Echoes over IPv6 that come back, one after another. */
export async function ping6(namespace: string, address: string, count: number): Promise<number> {
  const handle = openRaw({ family: 6, protocol: 58, namespace });
  const request = new Uint8Array(64);
  const packet = new Uint8Array(2048);
  const id = process.pid & 0xffff;
  let received = 0;
  try {
    for (let sequence = 0; sequence < count; sequence++) {
      emitEcho6(request, 0, ICMP6_ECHO_REQUEST, id, sequence); // the kernel adds the checksum (RFC 3542 §3.1)
      rawSend(handle, request, address);
      const deadline = performance.now() + 2_000;
      while (performance.now() < deadline) {
        await new Promise(resolve => setImmediate(resolve));
        const got = rawReceive(handle, packet, 20);
        if (got?.address !== address || packet[0] !== ICMP6_ECHO_REPLY || packet[7] !== sequence) continue;
        received++;
        break;
      }
    }
  } finally {
    close(handle);
  }
  return received;
}
