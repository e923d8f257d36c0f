/** Round trips from pod to pod: ping(8) when it is there, the lab's own echo otherwise. */
import type { End } from '../../lib/lab/measure.ts';
import { ping as labPing } from '../../lib/lab/ping.ts';
import { findOnPath } from '../../lib/lab/spawn.ts';
import { runIn } from './child.ts';

const INTERVAL_MS = 2;

/** Round trips in ms of echoes that came back, one sent every 2 ms; lost ones are missing. */
export async function pingEvery2ms(from: End, to: End, seconds: number, signal: AbortSignal): Promise<number[]> {
  const count = Math.max(1, Math.round((seconds * 1000) / INTERVAL_MS));
  const program = findOnPath('ping');
  if (program === undefined) {
    const { rttsMs } = await labPing(from.namespaceFile, to.address, {
      count,
      intervalMs: INTERVAL_MS,
      timeoutMs: 500,
    });
    return [...rttsMs];
  }
  const words = ['-n', '-i', String(INTERVAL_MS / 1000), '-c', String(count), '-W', '1'];
  const child = runIn(from.namespaceFile, [program, ...words, to.address], {
    name: 'ping',
    limitMs: seconds * 1000 * 2 + 3000,
    signal,
    anyCode: true,
  });
  return parsePing(await child.output);
}

/** The round trips of ping's lines, in order: "64 bytes from 10.42.2.2: icmp_seq=1 ttl=62 time=0.123 ms". */
export function parsePing(text: string): number[] {
  const replies = text.split('\n').filter(line => !line.includes('DUP!'));
  return replies.flatMap(line => {
    const time = /\bicmp_seq=\d+ .*\btime=([\d.]+) ms\b/.exec(line)?.[1];
    return time === undefined ? [] : [Number(time)];
  });
}
