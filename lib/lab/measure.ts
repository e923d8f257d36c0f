/** What the lab measures: round trips between pods, and one TCP stream from pod to pod and from node to node. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { TulleError } from '../util/errors.ts';
import type { PairFacts } from './picture.ts';
import { median, type PingOptions, ping, waitReachable } from './ping.ts';
import { endProcesses, identify } from './process.ts';
import { program, spawnIn } from './spawn.ts';
import type { Load, Received, Sent } from './traffic.ts';

/** One end of a measurement. */
export interface End {
  readonly name: string;
  readonly namespaceFile: string;
  readonly address: string;
}

const ECHOES: PingOptions = { count: 20, intervalMs: 20, timeoutMs: 1000 };
/** So many echoes at most over all pairs (6 s of them), at least 3 a pair. */
const ALL_ECHOES = 300;
const LEAST_ECHOES = 3;
/** A new path takes an ARP exchange on both sides and a lease that every peer has seen. */
const REACHABLE_MS = 15_000;

/** Waits until `from` reaches every other end: the overlay works, and every pod is on it. */
export async function waitForPaths(from: End, ends: readonly End[]): Promise<void> {
  for (const end of ends) {
    if (end.address === from.address) continue;
    try {
      await waitReachable(from.namespaceFile, end.address, REACHABLE_MS);
    } catch (error) {
      if (!(error instanceof TulleError) || error.code !== 'unreachable') throw error;
      throw new TulleError(
        'unreachable',
        `${end.name} (${end.address}) does not answer ${from.name} within ${REACHABLE_MS / 1000} s`,
      );
    }
  }
}

/** Round trips of each pair, one pair at a time. */
export async function measurePairs(pairs: readonly (readonly [End, End])[]): Promise<PairFacts[]> {
  const count = Math.max(LEAST_ECHOES, Math.min(ECHOES.count, Math.floor(ALL_ECHOES / Math.max(1, pairs.length))));
  const facts: PairFacts[] = [];
  for (const [from, to] of pairs) {
    await waitForPaths(from, [to]); // the first echo of a pair pays for ARP: not part of the figure
    const { sent, received, rttsMs } = await ping(from.namespaceFile, to.address, { ...ECHOES, count });
    facts.push({
      from: from.name,
      to: to.name,
      sent,
      received,
      medianMs: rounded(median(rttsMs)),
      leastMs: rounded(rttsMs.length === 0 ? null : Math.min(...rttsMs)),
    });
  }
  return facts;
}

/**
 * One TCP stream. Rejects when either end fails, when not every byte arrived (or not the right ones), and with code `stalled`
 * when it is not done after `limitMs`.
 */
export async function measureTcp(from: End, to: End, load: Load, limitMs?: number): Promise<Received> {
  const hash = 'bytes' in load;
  const words = hash ? ['bytes', String(load.bytes), String(load.seed)] : ['seconds', String(load.seconds)];
  const sender = startTraffic(from, ['send', from.address, ...words]);
  let receiver: TrafficChild | undefined;
  let isLate = false;
  const limit = setTimeout(
    () => {
      isLate = true;
      void sender.end();
      void receiver?.end();
    },
    limitMs ?? 2 ** 31 - 1,
  );
  try {
    const { port } = (await sender.next()) as { port: number };
    receiver = startTraffic(to, ['receive', from.address, String(port), ...(hash ? ['hash'] : [])]);
    const [sent, received] = (await Promise.all([sender.next(), receiver.next()])) as [Sent, Received];
    if (sent.bytes !== received.bytes || sent.sha256 !== received.sha256) {
      const what = `${received.bytes} of ${sent.bytes} bytes`;
      throw new TulleError(
        'traffic',
        `TCP from ${from.name} to ${to.name}: what arrived is not what was sent (${what})`,
      );
    }
    return { ...received, gbps: Math.round(received.gbps * 1000) / 1000 };
  } catch (error) {
    if (!isLate) throw error;
    const what = `not done after ${Math.round(limitMs! / 100) / 10} s: it hangs`;
    throw new TulleError('stalled', `TCP from ${from.name} to ${to.name} is ${what}`);
  } finally {
    clearTimeout(limit);
    await Promise.all([sender.end(), receiver?.end()]);
  }
}

interface TrafficChild {
  /** The next object that it prints. */
  next(): Promise<unknown>;
  end(): Promise<void>;
}

function startTraffic(end: End, args: readonly string[]): TrafficChild {
  const child = spawnIn(end.namespaceFile, process.execPath, [program('lib/lab/traffic-child.js'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const id = child.pid === undefined ? undefined : identify(child.pid);
  const lines = jsonLines(child, `the traffic generator in ${end.name}`);
  return {
    next: async () => {
      const { value } = await lines.next();
      return value;
    },
    end: async () => {
      if (id !== undefined) await endProcesses([id], 0, 'SIGKILL');
    },
  };
}

/** The objects that a child prints, one a line; {"error"} and an early end reject. */
async function* jsonLines(child: ChildProcess, who: string): AsyncGenerator<unknown, never> {
  let complaint = '';
  child.on('error', error => {
    complaint = error.message;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-500);
  });
  for await (const line of createInterface({ input: child.stdout! })) {
    const value = JSON.parse(line) as { error?: string };
    if (value.error !== undefined) throw new TulleError('traffic', `${who}: ${value.error}`);
    yield value;
  }
  throw new TulleError(
    'traffic',
    `${who} ended early${complaint === '' ? '' : `: ${complaint.trim().replaceAll('\n', ' | ')}`}`,
  );
}

const rounded = (ms: number | null): number | null => (ms === null ? null : Math.round(ms * 1000) / 1000);
