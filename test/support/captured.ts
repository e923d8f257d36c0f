/** Captures of a test's overlay, asked for as the control socket asks. */
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Overlay } from '../../lib/backend/overlay.ts';
import type { Lease } from '../../lib/lease/lease.ts';
import { nodeIdOf } from '../../lib/lease/lease.ts';
import { addCaptureRoutes } from '../../lib/observe/capture/routes.ts';
import { type CapturedNode, Captures } from '../../lib/observe/capture.ts';
import { ControlRoutes } from '../../lib/observe/control.ts';
import { type PcapngInterface, type PcapngPacket, readPcapng } from '../../lib/wire/pcapng-read.ts';
import { NETWORK } from './node.ts';

export function nodeOf(overlay: Overlay, name: string, peers: readonly Lease[]): CapturedNode {
  return {
    name: () => name,
    overlay: () => ({
      source: overlay.capture,
      device: overlay.device,
      local: { address: overlay.address, port: overlay.port },
      network: NETWORK.network,
    }),
    peers: () =>
      peers.map(lease => {
        const { PublicIP, PublicIPv6 } = lease.attributes;
        const addresses = [PublicIP, PublicIPv6].filter(address => typeof address === 'string');
        return { subnet: lease.subnet, node: nodeIdOf(lease), addresses };
      }),
  };
}

export interface CaptureServer {
  captures: Captures;
  /** Asks, and returns what came until the answer ended. */
  get(path: string): Promise<{ status: number; body: Buffer }>;
  /** Asks, and leaves the answer to the caller: it reads nothing before it is told to. */
  open(path: string): Promise<{ read(): Promise<Buffer>; next(): Promise<Buffer>; destroy(): void }>;
  post(path: string): Promise<number>;
  close(): Promise<void>;
}

export async function serveCaptures(node: CapturedNode): Promise<CaptureServer> {
  const captures = new Captures(node);
  const routes = new ControlRoutes();
  addCaptureRoutes(routes, captures, node);
  const server = createServer((message, response) => void routes.handle(message, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const ask = async (path: string, method = 'GET') => {
    const asked = request({ host: '127.0.0.1', port, path, method, agent: false });
    asked.end();
    const [answer] = await once(asked, 'response');
    return answer as import('node:http').IncomingMessage;
  };
  const bodyOf = async (answer: AsyncIterable<Buffer>): Promise<Buffer> => {
    const parts: Buffer[] = [];
    for await (const part of answer) parts.push(part);
    return Buffer.concat(parts);
  };
  return {
    captures,
    async get(path) {
      const answer = await ask(path);
      return { status: answer.statusCode ?? 0, body: await bodyOf(answer) };
    },
    async open(path) {
      const answer = await ask(path);
      return {
        read: () => bodyOf(answer),
        next: async () => (await once(answer, 'data'))[0] as Buffer,
        destroy: () => void answer.destroy(),
      };
    },
    async post(path) {
      const answer = await ask(path, 'POST');
      await bodyOf(answer);
      return answer.statusCode ?? 0;
    },
    async close() {
      captures.close();
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A packet of a file, with its interface's name. */
export interface FilePacket extends PcapngPacket {
  on: string;
}

export function readFile(file: Uint8Array): { packets: FilePacket[]; interfaces: PcapngInterface[] } {
  const { packets, interfaces, fault } = readPcapng(file);
  if (fault !== undefined) throw new Error(`byte ${fault.offset}: ${fault.reason}`);
  return { packets: packets.map(packet => ({ ...packet, on: interfaces[packet.interface].name })), interfaces };
}
