/**
 * `tulle capture`: the daemon's capture as a file, on standard output, or as lines for people. Only whole blocks are handed on, so
 * whatever ends it (Ctrl-C, the daemon's end, a full disk) what was written is a valid file.
 */
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { codeOf, messageOf, TulleError } from '../../util/errors.ts';
import { parseFilter, pointAt } from '../../wire/filter.ts';
import { BLOCK_STATISTICS } from '../../wire/pcapng.ts';
import { PcapngReader } from '../../wire/pcapng-read.ts';
import { DEFAULT_SNAPLEN } from '../capture.ts';
import { askControl, DEFAULT_CONTROL_SOCKET, openControlStream } from '../control-client.ts';
import { printCaptured } from './print.ts';
import { fileSink, type Sink, streamSink } from './sink.ts';

export const CAPTURE_HELP = `tulle capture: what passes through this node's data path

usage: tulle capture [--peer PEER] [--inner EXPR] [--snaplen N] [--count N] [--seconds N]
                     [-w FILE | --print] [--socket PATH]

Inner packets at the TUN, datagrams on the underlay and what was dropped, together, in pcapng: to standard output, unless -w or
--print says otherwise. Ctrl-C ends it.

  --peer PEER       only this peer's: a node's name, a subnet or an address in it, an underlay address with or without a port
                    tulle capture --peer node2 -w out.pcapng
  --inner EXPR      only where a pod's packet is meant by the expression: host, net, port, portrange, src, dst, tcp, udp, icmp,
                    icmp6, ip, ip6, proto, joined by and, or, not and parentheses
                    tulle capture --inner 'tcp port 80 and not host 10.42.1.7' --print
  --snaplen N       bytes of each packet, ${DEFAULT_SNAPLEN} unless it is given; 0 is all of it. Outer headers come on top
                    tulle capture --snaplen 0 -w whole.pcapng
  --count N         ends after so many packets
                    tulle capture --count 100 --print
  --seconds N       ends after so many seconds
                    tulle capture --seconds 10 -w out.pcapng
  -w FILE           into a file of mode 0600, which is replaced when the first packet can come
                    tulle capture -w out.pcapng
  --print           a line for each packet instead
                    tulle capture --print --peer node2
  --socket PATH     tulled's --control-socket, where it is not ${DEFAULT_CONTROL_SOCKET}
                    tulle capture --socket /run/tulle/node1-tulled.sock --print

  tulle capture | tcpdump -n -r -
  tulle capture --snaplen 0 | wireshark -k -i -

deploy/wireshark/tulle.lua shows Wireshark our header. docs/capture.md explains the file, and what of it is reconstructed.
`;

export interface CaptureFace {
  stdout: NodeJS.WritableStream & { isTTY?: boolean };
  error(text: string): void;
  /** Aborted when it shall end well: Ctrl-C. */
  signal: AbortSignal;
}

/** How long the daemon may take to end a capture before we end it ourselves. */
const END_MS = 3_000;

interface Wanted {
  query: URLSearchParams;
  socket: string;
  file: string | undefined;
  print: boolean;
}

/** Runs `tulle capture ARGS`; the result is the exit code. @throws TulleError */
export async function runCaptureCommand(args: readonly string[], face: CaptureFace): Promise<number> {
  const wanted = read(args);
  if (wanted === undefined) {
    face.stdout.write(CAPTURE_HELP);
    return 0;
  }
  if (wanted.file === undefined && !wanted.print && face.stdout.isTTY === true) {
    throw new TulleError(
      'usage',
      'a capture is not for a terminal: write it with -w FILE, see it with --print, or pipe it to "tcpdump -r -" or wireshark',
    );
  }
  const id = randomUUID();
  wanted.query.set('id', id);
  const hardEnd = new AbortController();
  const chunks = await openControlStream(wanted.socket, `/capture?${wanted.query}`, hardEnd.signal);
  const end = (): void => {
    setTimeout(() => hardEnd.abort(), END_MS).unref();
    const path = `/capture/end?id=${id}`;
    askControl(wanted.socket, { method: 'POST', path, timeoutMs: END_MS }).catch(() => hardEnd.abort());
  };
  if (face.signal.aborted) end();
  face.signal.addEventListener('abort', end);
  try {
    const sink = wanted.file === undefined ? streamSink(face.stdout) : await fileSink(wanted.file);
    return await copy(chunks, sink, wanted, face);
  } finally {
    face.signal.removeEventListener('abort', end);
    hardEnd.abort();
  }
}

async function copy(chunks: AsyncIterable<Uint8Array>, sink: Sink, wanted: Wanted, face: CaptureFace): Promise<number> {
  let parts: Uint8Array[] = [];
  let packets = 0;
  let complete = false;
  const colours = face.stdout.isTTY === true;
  const reader: PcapngReader = new PcapngReader({
    packet(packet) {
      packets++;
      if (wanted.print) parts.push(Buffer.from(printCaptured(packet, reader.interfaces[packet.interface], colours)));
    },
    block(type, bytes) {
      complete = type === BLOCK_STATISTICS;
      if (!wanted.print) parts.push(bytes);
    },
  });
  let reason: unknown;
  try {
    for await (const chunk of chunks) {
      reader.push(chunk);
      if (reader.fault !== undefined)
        throw new TulleError('bad-answer', `tulled sent no pcapng: ${reader.fault.reason}`);
      const bytes = Buffer.concat(parts);
      parts = [];
      if (bytes.length > 0 && !(await sink.write(bytes))) break; // "tulle capture | head": its reader has gone
    }
  } catch (error) {
    if (codeOf(error) !== 'gone') throw error;
    reason = error; // the daemon ended: what came is good
  } finally {
    await sink.close();
  }
  const lost = reader.interfaces.reduce((sum, { statistics }) => sum + (statistics?.lost ?? 0), 0);
  const where = wanted.file === undefined ? '' : ` to ${wanted.file}`;
  const loss = complete ? `${lost} lost by the capture` : 'how many were lost is not known';
  face.error(`tulle: ${packets} packets captured${where}, ${loss}\n`);
  if (reason === undefined) return 0;
  face.error(`tulle: ${messageOf(reason)}\n`);
  return 1;
}

function read(args: readonly string[]): Wanted | undefined {
  const { values } = parse(args);
  if (values.help === true) return undefined;
  if (values.print === true && values.w !== undefined) throw usage('--print and -w exclude each other');
  if (values.inner !== undefined) {
    const parsed = parseFilter(values.inner);
    if ('error' in parsed) {
      const { column, message } = parsed.error;
      throw new TulleError(
        'usage',
        `--inner, column ${column}: ${message}\n  ${pointAt(values.inner, parsed.error).replace('\n', '\n  ')}`,
      );
    }
  }
  const query = new URLSearchParams();
  for (const name of ['peer', 'inner', 'snaplen', 'count', 'seconds'] as const) {
    const value = values[name];
    if (value === undefined) continue;
    if (name !== 'peer' && name !== 'inner' && !/^\d{1,15}$/.test(value))
      throw usage(`--${name} ${value}: a number is wanted`);
    query.set(name, value);
  }
  return { query, socket: values.socket ?? DEFAULT_CONTROL_SOCKET, file: values.w, print: values.print === true };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        peer: { type: 'string' },
        inner: { type: 'string' },
        snaplen: { type: 'string' },
        count: { type: 'string' },
        seconds: { type: 'string' },
        w: { type: 'string', short: 'w' },
        print: { type: 'boolean' },
        socket: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    throw usage(messageOf(error).split('. ')[0]);
  }
}

function usage(message: string): TulleError {
  return new TulleError('usage', `${message}: see "tulle capture --help"`);
}
