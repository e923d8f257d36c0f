/** One visit to one tunnel: all workloads, one after the other. A workload that fails is null and a line, not the end. */
import { setTimeout as delay } from 'node:timers/promises';
import { measureTcp } from '../lib/lab/measure.ts';
import { messageOf } from '../lib/util/errors.ts';
import { machineCpu, ownCpu, peakMb, processCpu } from './cpu.ts';
import { connectionsPerSecond } from './load/connect.ts';
import { type IperfResult, iperf } from './load/iperf.ts';
import { pingEvery2ms } from './load/ping.ts';
import type { Measured, Metric } from './metrics.ts';
import type { Found } from './programs.ts';
import type { Stage } from './stage.ts';
import { quantile } from './statistics.ts';
import type { Made, Tunnel } from './tunnels/tunnel.ts';

/** What the issue and the facts offer: far more than anything here delivers. */
const UDP64_BITS_PER_SECOND = 300e6;
const UDP64_BYTES = 64;
const UDP1400_BYTES = 1400;
/** Of the rate at which VXLAN delivered: a rate that it carries. */
const CARRIED = 0.9;

export interface Visit {
  readonly stage: Stage;
  readonly tunnel: Tunnel;
  readonly made: Made;
  /** undefined: the lab's generator, TCP with one stream only. */
  readonly iperf3: Found | undefined;
  readonly seconds: number;
  /** Only what `--quick` prints. */
  readonly short: boolean;
  /** Small packets that the baseline delivered in this round, in thousands a second. */
  readonly baselineKpps: number | undefined;
  readonly signal: AbortSignal;
  readonly note: (text: string) => void;
}

export async function measure(visit: Visit): Promise<Measured> {
  const measured: Measured = {};
  const attempt = async (metrics: readonly Metric[], action: () => Promise<Measured>): Promise<void> => {
    visit.signal.throwIfAborted();
    for (const metric of metrics) measured[metric] = null;
    try {
      Object.assign(measured, await action());
    } catch (error) {
      visit.signal.throwIfAborted();
      visit.note(`${visit.tunnel.name}: ${metrics[0]}: ${messageOf(error)}`);
    }
  };
  const { short } = visit;
  await attempt(['rttMs', 'rttP90Ms', 'rttP99Ms'], () => idleRtt(visit));
  await attempt(['tcp1Gbps', 'tcp1Retransmits', 'cpuPerGb', 'machineCpuPerGb'], () => oneStream(visit));
  if (visit.iperf3 !== undefined) {
    const program = visit.iperf3;
    await attempt(['tcp4Gbps'], async () => ({ tcp4Gbps: (await tcp(visit, program, 4)).gbps }));
    await attempt(['udp64Kpps', 'udp64LossPct'], () => smallPackets(visit, program));
    const carried = visit.baselineKpps ?? measured.udp64Kpps ?? undefined;
    if (!short && carried !== undefined)
      await attempt(['udp64CarriedLossPct'], () => carriedRate(visit, program, carried));
    if (!short) await attempt(['udp1400Gbps', 'udp1400LossPct'], () => largePackets(visit, program));
    if (!short) await attempt(['rttLoadMs', 'rttLoadP90Ms', 'rttLoadP99Ms'], () => loadedRtt(visit, program));
  }
  if (!short) await attempt(['connectionsPerSecond'], () => connections(visit));
  if (visit.tunnel.kind === 'user') await attempt(['rssMb'], async () => ({ rssMb: peakMb(idsOf(visit)) }));
  return measured;
}

const idsOf = ({ made }: Visit): Made['programs'][number]['id'][] => made.programs.map(program => program.id);
const podsOf = ({ stage }: Visit) => [stage.nodes[0].pod, stage.nodes[1].pod] as const;

function tcp(visit: Visit, program: Found, streams: number): Promise<IperfResult> {
  const [from, to] = podsOf(visit);
  return iperf(program, from, to, { seconds: visit.seconds, streams }, visit.signal);
}

/**
 * Throughput, and the CPU time it took. A tunnel of processes costs what they used; one of the kernel what the machine
 * used, less the generator and ourselves: so the latter is too high on a machine that is busy otherwise.
 */
async function oneStream(visit: Visit): Promise<Measured> {
  const before = [processCpu(idsOf(visit)), machineCpu(), ownCpu()];
  const { iperf3 } = visit;
  const { gbps, gigabits, retransmits, cpuSeconds } =
    iperf3 === undefined ? await builtInTcp(visit) : await tcp(visit, iperf3, 1);
  const after = [processCpu(idsOf(visit)), machineCpu(), ownCpu()];
  const [processes, machine, own] = after.map((value, i) => value - before[i]);
  const system = Math.max(0, machine - own - cpuSeconds);
  const used = visit.tunnel.kind === 'user' ? processes : system;
  return {
    tcp1Gbps: gbps,
    tcp1Retransmits: iperf3 === undefined ? null : retransmits,
    cpuPerGb: gigabits > 0 && (visit.tunnel.kind === 'user' || iperf3 !== undefined) ? used / gigabits : null,
    machineCpuPerGb: gigabits > 0 ? Math.max(0, machine - own) / gigabits : null,
  };
}

async function builtInTcp(
  visit: Visit,
): Promise<Pick<IperfResult, 'gbps' | 'gigabits' | 'retransmits' | 'cpuSeconds'>> {
  const [from, to] = podsOf(visit);
  const { gbps, bytes } = await measureTcp(from, to, { seconds: visit.seconds });
  return { gbps, gigabits: (bytes * 8) / 1e9, retransmits: 0, cpuSeconds: 0 };
}

function udp(visit: Visit, program: Found, bytes: number, bitsPerSecond: number): Promise<IperfResult> {
  const [from, to] = podsOf(visit);
  return iperf(program, from, to, { seconds: visit.seconds, udp: { bytes, bitsPerSecond } }, visit.signal);
}

const lossPct = ({ sentPackets, receivedPackets }: IperfResult): number | null =>
  sentPackets === 0 ? null : Math.max(0, 100 * (1 - receivedPackets / sentPackets));

async function smallPackets(visit: Visit, program: Found): Promise<Measured> {
  const result = await udp(visit, program, UDP64_BYTES, UDP64_BITS_PER_SECOND);
  return { udp64Kpps: result.receivedPackets / result.seconds / 1000, udp64LossPct: lossPct(result) };
}

async function carriedRate(visit: Visit, program: Found, kpps: number): Promise<Measured> {
  const result = await udp(visit, program, UDP64_BYTES, kpps * CARRIED * 1000 * UDP64_BYTES * 8);
  return { udp64CarriedLossPct: lossPct(result) };
}

async function largePackets(visit: Visit, program: Found): Promise<Measured> {
  const result = await udp(visit, program, UDP1400_BYTES, 0);
  return { udp1400Gbps: result.gbps, udp1400LossPct: lossPct(result) };
}

async function idleRtt(visit: Visit): Promise<Measured> {
  const [from, to] = podsOf(visit);
  const rtts = await pingEvery2ms(from, to, visit.short ? 0.6 : visit.seconds, visit.signal);
  return { rttMs: quantile(rtts, 0.5), rttP90Ms: quantile(rtts, 0.9), rttP99Ms: quantile(rtts, 0.99) };
}

/** While one TCP stream takes all that it can get. */
async function loadedRtt(visit: Visit, program: Found): Promise<Measured> {
  const [from, to] = podsOf(visit);
  const load = iperf(program, from, to, { seconds: visit.seconds + 1 }, visit.signal);
  load.catch(() => {});
  await delay(700); // it has to get going, and it ends after the last echo
  const rtts = await pingEvery2ms(from, to, Math.max(0.5, visit.seconds - 0.5), visit.signal);
  await load;
  return { rttLoadMs: quantile(rtts, 0.5), rttLoadP90Ms: quantile(rtts, 0.9), rttLoadP99Ms: quantile(rtts, 0.99) };
}

async function connections(visit: Visit): Promise<Measured> {
  const [from, to] = podsOf(visit);
  return { connectionsPerSecond: await connectionsPerSecond(from, to, visit.seconds, visit.signal) };
}
