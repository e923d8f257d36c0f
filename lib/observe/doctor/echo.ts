/**
 * ICMP echo to the peers' underlay addresses: with the optional npm package raw-socket where it loads, else with the raw
 * sockets of lib/sys. Both need CAP_NET_RAW.
 */
import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { close, openRaw, rawReceive, rawSend } from '../../sys/sys.ts';
import { finish, sum } from '../../wire/checksum.ts';

/** What this uses of raw-socket, which brings no types. */
interface RawSocketModule {
  Protocol: { ICMP: number };
  createSocket(options: { protocol: number }): RawSocket;
}

interface RawSocket {
  on(event: 'message', listener: (packet: Buffer, source: string) => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  send(bytes: Buffer, offset: number, length: number, address: string, done: (error: Error | null) => void): void;
  close(): void;
}

/** Which of both was used, and who answered. */
export interface EchoResult {
  by: 'raw-socket' | 'lib/sys';
  answered: ReadonlySet<string>;
}

const ECHO_REQUEST = 8;
const ECHO_REPLY = 0;
const ROUNDS = 3;
const ROUND_MS = 400;
/** Of an IPv4 header without options; echo replies seldom have more. */
const nibble = (byte: number): number => (byte & 0x0f) * 4;

/** Asks each IPv4 address up to three times. @throws where no raw socket can be opened */
export async function echo(addresses: readonly string[]): Promise<EchoResult> {
  const id = randomInt(1, 0xffff);
  const wanted = new Set(addresses);
  const answered = new Set<string>();
  const hear = (packet: Uint8Array, source: string): void => {
    const at = nibble(packet[0]);
    const isOurs = packet[at] === ECHO_REPLY && ((packet[at + 4] << 8) | packet[at + 5]) === id;
    if (isOurs && wanted.has(source)) answered.add(source);
  };
  const raw = await loadRawSocket();
  const socket = (raw && openByPackage(raw, hear)) ?? openByAddon(hear);
  try {
    for (let round = 0; round < ROUNDS && answered.size < wanted.size; round++) {
      for (const address of wanted) if (!answered.has(address)) socket.send(echoRequest(id, round), address);
      const end = performance.now() + ROUND_MS;
      while (performance.now() < end && answered.size < wanted.size) {
        socket.poll();
        await delay(10);
      }
    }
    return { by: socket.by, answered };
  } finally {
    socket.close();
  }
}

function echoRequest(id: number, sequence: number): Buffer {
  const packet = Buffer.alloc(8 + 24);
  packet.set([ECHO_REQUEST, 0, 0, 0, id >>> 8, id, sequence >>> 8, sequence]);
  packet.write('tulle doctor', 8);
  packet.writeUInt16BE(finish(sum(packet, 0, packet.length)), 2);
  return packet;
}

interface EchoSocket {
  by: EchoResult['by'];
  send(packet: Buffer, address: string): void;
  /** Takes what has come. */
  poll(): void;
  close(): void;
}

async function loadRawSocket(): Promise<RawSocketModule | undefined> {
  try {
    // Optional: it does not build everywhere.
    const name = 'raw-socket';
    const { default: module } = (await import(name)) as { default: RawSocketModule };
    return module;
  } catch {
    return undefined;
  }
}

type Hear = (packet: Uint8Array, source: string) => void;

function openByPackage(raw: RawSocketModule, hear: Hear): EchoSocket | undefined {
  try {
    const socket = raw.createSocket({ protocol: raw.Protocol.ICMP });
    socket.on('message', hear);
    socket.on('error', () => {}); // whoever does not answer is reported
    return {
      by: 'raw-socket',
      send: (packet, address) => socket.send(packet, 0, packet.length, address, () => {}),
      poll: () => {},
      close: () => socket.close(),
    };
  } catch {
    return undefined;
  }
}

function openByAddon(hear: Hear): EchoSocket {
  const handle = openRaw({ family: 4, protocol: 1 });
  const buffer = new Uint8Array(2048);
  return {
    by: 'lib/sys',
    send(packet, address) {
      try {
        rawSend(handle, packet, address);
      } catch {
        // no route: it will not answer
      }
    },
    poll() {
      for (let got = rawReceive(handle, buffer, 0); got !== undefined; got = rawReceive(handle, buffer, 0))
        hear(buffer.subarray(0, got.bytes), got.address);
    },
    close: () => close(handle),
  };
}
