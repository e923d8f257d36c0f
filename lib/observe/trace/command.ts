/** `tulle trace`: asks this node's tulled to send one packet, or to explain what would become of it, and prints the story. */
import { parseArgs } from 'node:util';
import { codeOf, messageOf, TulleError } from '../../util/errors.ts';
import { askControl, DEFAULT_CONTROL_SOCKET } from '../control-client.ts';
import { checkQuestion, DEFAULT_PORT, DEFAULT_SIZE, DEFAULT_TTL, type TraceQuestion } from './packet.ts';
import { printStory } from './print.ts';
import type { Story } from './story.ts';

export const TRACE_HELP = `tulle trace: follow one packet from this node to its destination, and see what each place does with it

usage: tulle trace SRC DST [--proto icmp|tcp|udp] [--port N] [--size N] [--ttl N] [--explain] [--json] [--socket PATH]

SRC is the address of a pod of this node (any address will do, to see who refuses it), DST that of any pod.

  --proto NAME      icmp (an echo request), tcp (a SYN) or udp; icmp unless it is given
                    tulle trace 10.42.1.2 10.42.2.2 --proto tcp --port 80
  --port N          the destination port: ${DEFAULT_PORT.tcp} for tcp, ${DEFAULT_PORT.udp} for udp unless it is given
                    tulle trace 10.42.1.2 10.42.2.2 --proto udp --port 53
  --size N          bytes of the whole packet, IP header included; ${DEFAULT_SIZE} unless it is given
                    tulle trace 10.42.1.2 10.42.2.2 --size 1460
  --ttl N           its TTL (IPv6: hop limit) as it comes out of the device; ${DEFAULT_TTL} unless it is given
                    tulle trace 10.42.1.2 10.42.2.2 --ttl 1
  --explain         send nothing: say what would happen, from what this node knows
                    tulle trace 10.42.1.2 10.42.2.2 --explain
  --json            for programs: one JSON document
                    tulle trace 10.42.1.2 10.42.2.2 --json
  --socket PATH     tulled's --control-socket, where it is not ${DEFAULT_CONTROL_SOCKET}
                    tulle trace 10.42.1.2 10.42.2.2 --socket /run/tulle/node1-tulled.sock

Exit codes: 0 delivered, 1 stopped, 2 nobody can be asked: no tulled here, or it arrived where nobody can tell.
docs/trace.md explains each step.
`;

export const EXIT_DELIVERED = 0;
export const EXIT_STOPPED = 1;
export const EXIT_UNKNOWN = 2;

export interface TraceFace {
  out(text: string): void;
  error(text: string): void;
}

/** Longer than a trace can take. */
const TIMEOUT_MS = 15_000;

/** Runs `tulle trace ARGS`; the result is the exit code. @throws TulleError 'usage' */
export async function runTraceCommand(args: readonly string[], face: TraceFace): Promise<number> {
  const wanted = read(args);
  if (wanted === undefined) {
    face.out(TRACE_HELP);
    return EXIT_DELIVERED;
  }
  const { socket, json, explain, question } = wanted;
  try {
    const story = await askTrace(socket, question, explain);
    face.out(json ? `${JSON.stringify(story)}\n` : printStory(story));
    return exitCodeOf(story);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    face.error(`tulle: ${messageOf(error)}\n`);
    return EXIT_UNKNOWN;
  }
}

/** The story of one packet, by the daemon at that socket. @throws TulleError of the daemon or the way to it */
export async function askTrace(socket: string, question: TraceQuestion, explain: boolean): Promise<Story> {
  const body = { ...question, explain };
  return (await askControl(socket, { path: '/trace', body, timeoutMs: TIMEOUT_MS })) as Story;
}

export function exitCodeOf({ outcome }: Story): number {
  if (outcome === 'delivered') return EXIT_DELIVERED;
  return outcome === 'stopped' ? EXIT_STOPPED : EXIT_UNKNOWN;
}

/** Undefined: help was asked for. */
function read(
  args: readonly string[],
): { socket: string; json: boolean; explain: boolean; question: TraceQuestion } | undefined {
  const { values, positionals } = parse(args);
  if (values.help) return undefined;
  const [source, destination, ...rest] = positionals;
  if (source === undefined || destination === undefined) throw usage('give a source and a destination');
  if (rest.length > 0) throw usage(`"${rest[0]}": one argument too many`);
  const number = (name: 'port' | 'size' | 'ttl'): number | undefined => {
    const text = values[name];
    if (text !== undefined && !/^\d{1,6}$/.test(text)) throw usage(`--${name}: "${text}" is no number`);
    return text === undefined ? undefined : Number(text);
  };
  const asked = {
    source,
    destination,
    protocol: values.proto,
    port: number('port'),
    size: number('size'),
    ttl: number('ttl'),
  };
  try {
    const question = checkQuestion(asked);
    return { socket: values.socket, json: values.json, explain: values.explain, question };
  } catch (error) {
    throw usage(messageOf(error));
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        proto: { type: 'string', default: 'icmp' },
        port: { type: 'string' },
        size: { type: 'string' },
        ttl: { type: 'string' },
        explain: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        socket: { type: 'string', default: DEFAULT_CONTROL_SOCKET },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    throw usage(messageOf(error));
  }
}

function usage(message: string): TulleError {
  return new TulleError('usage', `${message}: see "tulle trace --help"`);
}
