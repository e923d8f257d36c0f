/** `tulle status`: asks this node's tulled, or all nodes through it, and says whether they are well. */
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import { askControl, DEFAULT_CONTROL_SOCKET } from './control-client.ts';
import type { StatusDocument } from './status.ts';
import { isClusterHealthy, printCluster, readCluster } from './status-cluster.ts';
import { printStatus } from './status-print.ts';

export const STATUS_HELP = `tulle status: what this node's tulled says of itself

usage: tulle status [--json] [--watch [--interval SECONDS]] [--cluster] [--socket PATH]

  --json            for programs: one JSON document (with --watch one a line)
                    tulle status --json
  --watch           again and again until Ctrl-C
                    tulle status --watch
  --interval S      the seconds between two looks of --watch; 2 unless it is given
                    tulle status --watch --interval 10
  --cluster         all nodes that answer, one line each; asked through this one
                    tulle status --cluster
  --socket PATH     tulled's --control-socket, where it is not ${DEFAULT_CONTROL_SOCKET}
                    tulle status --socket /run/tulle/node1-tulled.sock

Exit codes: 0 healthy, 1 not healthy (the lines with "!" say why), 2 nobody answers.
docs/status.md explains each line.
`;

export const EXIT_HEALTHY = 0;
export const EXIT_UNHEALTHY = 1;
export const EXIT_SILENT = 2;

export interface CommandFace {
  out(text: string): void;
  error(text: string): void;
  /** Ends --watch. */
  signal: AbortSignal;
}

/** A thousand nodes of which none answers, thirty at a time. */
const CLUSTER_MS = 60_000;
const CLEAR_SCREEN = '\x1b[H\x1b[2J';

interface Wanted {
  socket: string;
  json: boolean;
  cluster: boolean;
  intervalMs: number | undefined;
}

/** Runs `tulle status ARGS`; the result is the exit code. @throws TulleError 'usage' */
export async function runStatusCommand(args: readonly string[], face: CommandFace): Promise<number> {
  const wanted = read(args);
  if (wanted === undefined) {
    face.out(STATUS_HELP);
    return EXIT_HEALTHY;
  }
  let code = await look(wanted, face, '');
  while (wanted.intervalMs !== undefined && !face.signal.aborted) {
    await delay(wanted.intervalMs, undefined, { signal: face.signal }).catch(() => {}); // aborted: the loop sees it
    if (!face.signal.aborted) code = await look(wanted, face, wanted.json ? '' : CLEAR_SCREEN);
  }
  return code;
}

async function look(wanted: Wanted, face: CommandFace, before: string): Promise<number> {
  try {
    if (wanted.cluster) {
      const answer = await askControl(wanted.socket, { path: '/cluster', timeoutMs: CLUSTER_MS });
      const nodes = readCluster(answer);
      face.out(wanted.json ? `${JSON.stringify(answer)}\n` : before + printCluster(nodes));
      return isClusterHealthy(nodes) ? EXIT_HEALTHY : EXIT_UNHEALTHY;
    }
    const status = (await askControl(wanted.socket, { path: '/status' })) as StatusDocument;
    face.out(wanted.json ? `${JSON.stringify(status)}\n` : before + printStatus(status));
    return status.healthy ? EXIT_HEALTHY : EXIT_UNHEALTHY;
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    face.error(`tulle: ${messageOf(error)}\n`);
    return EXIT_SILENT;
  }
}

/** Undefined: help was asked for. */
function read(args: readonly string[]): Wanted | undefined {
  const options = {
    json: { type: 'boolean' },
    watch: { type: 'boolean' },
    cluster: { type: 'boolean' },
    interval: { type: 'string' },
    socket: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  } as const;
  let values: ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];
  try {
    ({ values } = parseArgs({ args: [...args], options }));
  } catch (error) {
    throw usage(messageOf(error).split('. ')[0]);
  }
  if (values.help === true) return undefined;
  const seconds = Number(values.interval ?? 2);
  if (!(seconds >= 0.1 && seconds <= 86_400)) throw usage(`--interval ${values.interval}: give seconds, 0.1 or more`);
  if (values.interval !== undefined && values.watch !== true) throw usage('--interval goes with --watch');
  return {
    socket: values.socket ?? DEFAULT_CONTROL_SOCKET,
    json: values.json === true,
    cluster: values.cluster === true,
    intervalMs: values.watch === true ? seconds * 1000 : undefined,
  };
}

function usage(message: string): TulleError {
  return new TulleError('usage', `${message}: see "tulle status --help"`);
}
