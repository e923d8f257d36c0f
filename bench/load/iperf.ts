/** iperf3 between the pods: the server in the second one, for one test each, the client in the first. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { End } from '../../lib/lab/measure.ts';
import { TulleError } from '../../lib/util/errors.ts';
import type { Found } from '../programs.ts';
import { type Child, runIn } from './child.ts';

const PORT = 5201;
const LISTEN_MS = 3000;
/** TCP's slow start and a JIT: not part of the figure. */
const SKIP_SECONDS = 0.3;
/** Connecting, the exchange of results, a tunnel that loses what it is sent. */
const GRACE_MS = 6000;

export interface IperfResult {
  /** Received, without the first moments. */
  readonly gbps: number;
  /** Received, over the whole test. */
  readonly gigabits: number;
  readonly retransmits: number;
  /** Of client and server: user and system. */
  readonly cpuSeconds: number;
  /** UDP only. */
  readonly sentPackets: number;
  readonly receivedPackets: number;
  readonly seconds: number;
}

export interface IperfLoad {
  /** Whole seconds: iperf3 knows no others. */
  readonly seconds: number;
  readonly streams?: number;
  /** Bytes of payload in a datagram, and offered bits a second (0: as fast as it can). Absent: TCP. */
  readonly udp?: { readonly bytes: number; readonly bitsPerSecond: number };
}

/** Runs one test. Rejects when it fails, takes too long or is interrupted; nothing of it runs on then. */
export async function iperf(
  program: Found,
  from: End,
  to: End,
  load: IperfLoad,
  signal: AbortSignal,
): Promise<IperfResult> {
  const limitMs = load.seconds * 1000 + GRACE_MS;
  const common = ['--json', '--interval', '0.1', '--port', String(PORT)];
  const { path, environment } = program;
  const server = runIn(to.namespaceFile, [path, '--server', '--one-off', '--bind', to.address, ...common], {
    name: 'the iperf3 server',
    limitMs: limitMs + LISTEN_MS,
    signal,
    environment,
  });
  try {
    await waitForListener(server, signal);
    const words = ['--client', to.address, '--time', String(load.seconds), '--get-server-output'];
    if (load.streams !== undefined) words.push('--parallel', String(load.streams));
    if (load.udp !== undefined) {
      words.push(
        '--udp',
        '--length',
        String(load.udp.bytes),
        '--bandwidth',
        String(Math.round(load.udp.bitsPerSecond)),
      );
    }
    const client = runIn(from.namespaceFile, [path, ...words, ...common], {
      name: 'the iperf3 client',
      limitMs,
      signal,
      environment,
      anyCode: true, // its complaint is in the JSON
    });
    return parseIperf(await client.output, load.udp !== undefined);
  } finally {
    server.kill();
    await server.output.catch(() => {});
  }
}

/** Until the server's port is in its namespace's table of listeners (proc(5); state 0A is LISTEN). */
async function waitForListener(server: Child, signal: AbortSignal): Promise<void> {
  const port = `:${PORT.toString(16).toUpperCase().padStart(4, '0')} `;
  const deadline = performance.now() + LISTEN_MS;
  while (performance.now() < deadline) {
    signal.throwIfAborted();
    try {
      const table = readFileSync(`/proc/${server.pid}/net/tcp`, 'utf8');
      if (table.split('\n').some(line => line.includes(port) && / 0A /.test(line))) return;
    } catch {
      break; // it has ended: its output says why
    }
    await delay(5);
  }
  server.kill();
  await server.output;
  throw new TulleError('load', 'the iperf3 server does not listen');
}

interface Sum {
  start?: number;
  end?: number;
  seconds?: number;
  bytes?: number;
  packets?: number;
  lost_packets?: number;
  retransmits?: number;
}

interface Report {
  error?: string;
  intervals?: { sum: Sum }[];
  end?: {
    sum?: Sum;
    sum_sent?: Sum;
    sum_received?: Sum;
    cpu_utilization_percent?: { host_total: number; remote_total: number };
  };
  server_output_json?: Report;
}

/** The client's report with the server's inside. What arrived counts, so the server's intervals do where they are there. */
export function parseIperf(text: string, udp: boolean): IperfResult {
  let report: Report;
  try {
    report = JSON.parse(text) as Report;
  } catch {
    throw new TulleError('load', `iperf3 printed no report: ${JSON.stringify(text.slice(-100))}`);
  }
  if (report.error !== undefined) throw new TulleError('load', `iperf3: ${report.error}`);
  const { end = {} } = report;
  const sent = end.sum_sent ?? end.sum ?? {};
  const received = end.sum_received ?? end.sum ?? {};
  const seconds = sent.seconds ?? 0;
  if (!(seconds > 0)) throw new TulleError('load', 'iperf3 reports no time');
  const cpu = end.cpu_utilization_percent;
  const sentPackets = sent.packets ?? 0;
  // The server counts up to the last one that it saw; what was lost after that only the sender knows of.
  const receivedPackets = Math.max(0, (received.packets ?? 0) - (received.lost_packets ?? 0));
  const bytes = received.bytes ?? 0;
  return {
    gbps: udp ? (bytes * 8) / seconds / 1e9 : steadyRate(report.server_output_json?.intervals ?? [], bytes, seconds),
    gigabits: (bytes * 8) / 1e9,
    retransmits: sent.retransmits ?? 0,
    cpuSeconds: cpu === undefined ? 0 : ((cpu.host_total + cpu.remote_total) / 100) * seconds,
    sentPackets,
    receivedPackets,
    seconds,
  };
}

function steadyRate(intervals: readonly { sum: Sum }[], allBytes: number, allSeconds: number): number {
  let bytes = 0;
  let seconds = 0;
  for (const { sum } of intervals) {
    if ((sum.start ?? 0) < SKIP_SECONDS || (sum.seconds ?? 0) <= 0) continue;
    bytes += sum.bytes ?? 0;
    seconds += sum.seconds ?? 0;
  }
  const enough = seconds > allSeconds / 2;
  return enough ? (bytes * 8) / seconds / 1e9 : (allBytes * 8) / allSeconds / 1e9;
}
