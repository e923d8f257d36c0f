/**
 * Alternating rounds: A B C … A B C …, so that a slow minute of the machine touches all of them. One tunnel is up at a
 * time. What a tunnel cannot do is a line and a gap in the results, never the end of the run.
 */
import { messageOf } from '../lib/util/errors.ts';
import { measure } from './measure.ts';
import { formatMetric, type Measured, type Metric } from './metrics.ts';
import { type Found, findProgram } from './programs.ts';
import { Collector, type Row } from './results.ts';
import { type Stage, sweep, waitForPods } from './stage.ts';
import { BASELINE, TUNNELS } from './tunnels/all.ts';
import { down, type Made, type Tunnel } from './tunnels/tunnel.ts';
import { setUnderlay, type Underlay } from './underlay.ts';

export interface Plan {
  readonly cells: readonly { readonly tunnel: string; readonly underlay: Underlay }[];
  readonly rounds: number;
  readonly seconds: number;
  readonly short: boolean;
  readonly fetch: boolean;
  /** Of one package. */
  readonly fetchMs: number;
  /** No visit begins after this moment of performance.now(), unless it is likely to end before it. */
  readonly endsAt: number;
}

/** One visit's tunnel fails this often in a row, then it is left out. */
const PATIENCE = 2;

export interface Outcome {
  readonly rows: Row[];
  /** Rounds that were begun. */
  readonly rounds: number;
}

/** `onRows` hears of the rows so far after each visit: what there is when the run is cut short. */
export async function runRounds(
  stage: Stage,
  plan: Plan,
  tools: Tools,
  signal: AbortSignal,
  note: (text: string) => void,
  onRows: (outcome: Outcome) => void,
): Promise<Outcome> {
  const available = await findTunnels(plan, signal, note);
  const cells = plan.cells.filter(({ tunnel, underlay }) => {
    return available.has(tunnel) && (underlay === 'veth' || tools.ethtool !== undefined);
  });
  const collector = new Collector();
  const failures = new Map<string, number>();
  let longestMs = 0;
  let underlayNow: Underlay = 'veth';
  let begun = 0;
  for (let round = 0; round < plan.rounds; round++) {
    const baselineKpps = new Map<Underlay, number>();
    for (const { tunnel: name, underlay } of cells) {
      const { tunnel, found } = available.get(name)!;
      if ((failures.get(name) ?? 0) >= PATIENCE) continue;
      const start = performance.now();
      if (start + longestMs > plan.endsAt) return { rows: collector.rows(begun), rounds: begun };
      begun = round + 1;
      if (underlay !== underlayNow && tools.ethtool !== undefined) setUnderlay(stage, underlay, tools.ethtool);
      underlayNow = underlay;
      const made: Made = { programs: [], found };
      let measured: Measured | undefined;
      try {
        sweep(stage);
        await tunnel.up(stage, made);
        await waitForPods(stage, made.programs, signal);
        const { seconds, short } = plan;
        const visit = { stage, tunnel, made, iperf3: tools.iperf3, seconds, short, signal, note };
        measured = await measure({ ...visit, baselineKpps: baselineKpps.get(underlay) });
        failures.delete(name);
      } catch (error) {
        signal.throwIfAborted();
        failures.set(name, (failures.get(name) ?? 0) + 1);
        const end = failures.get(name) === PATIENCE ? ': left out from here on' : '';
        note(`${name}: ${messageOf(error)}${end}`);
      } finally {
        await down(stage, made);
        tunnel.clean?.();
      }
      if (measured === undefined) continue;
      if (name === BASELINE && measured.udp64Kpps) baselineKpps.set(underlay, measured.udp64Kpps);
      collector.add({ tunnel: name, kind: tunnel.kind, underlay }, round, measured);
      longestMs = Math.max(longestMs, performance.now() - start);
      note(progressLine(round, plan.rounds, underlay, name, measured));
      onRows({ rows: collector.rows(begun), rounds: begun });
    }
  }
  return { rows: collector.rows(begun), rounds: begun };
}

export interface Tools {
  readonly iperf3: Found | undefined;
  /** undefined: no NIC-like underlay. */
  readonly ethtool: Found | undefined;
}

/** What the bench measures with; a line for each that is not to be had. */
export async function findTools(plan: Plan, note: (text: string) => void): Promise<Tools> {
  const options = { limitMs: plan.fetchMs, fetch: plan.fetch };
  const iperf3 = await findProgram({ package: 'iperf3', program: 'iperf3' }, options);
  if (typeof iperf3 === 'string') note(`${iperf3}: the built-in generator it is, TCP with one stream and nothing else`);
  const nic = plan.cells.some(({ underlay }) => underlay === 'nic');
  const ethtool = nic ? await findProgram({ package: 'ethtool', program: 'ethtool' }, options) : undefined;
  if (typeof ethtool === 'string') note(`skipped: the NIC-like underlay: ${ethtool}`);
  return {
    iperf3: typeof iperf3 === 'string' ? undefined : iperf3,
    ethtool: typeof ethtool === 'string' ? undefined : ethtool,
  };
}

/** The tunnels of the plan whose programs are here or can be fetched; one line for each of the others. */
async function findTunnels(
  plan: Plan,
  signal: AbortSignal,
  note: (text: string) => void,
): Promise<Map<string, { tunnel: Tunnel; found: Found | undefined }>> {
  const available = new Map<string, { tunnel: Tunnel; found: Found | undefined }>();
  for (const tunnel of TUNNELS) {
    if (!plan.cells.some(cell => cell.tunnel === tunnel.name)) continue;
    signal.throwIfAborted();
    const options = { limitMs: plan.fetchMs, fetch: plan.fetch };
    const found = tunnel.needs === undefined ? undefined : await findProgram(tunnel.needs, options);
    if (typeof found === 'string') note(`skipped: ${tunnel.name}: ${found}`);
    else available.set(tunnel.name, { tunnel, found });
  }
  return available;
}

const SHOWN: readonly (readonly [Metric, string])[] = [
  ['tcp1Gbps', 'Gb/s'],
  ['tcp4Gbps', 'Gb/s (4)'],
  ['rttMs', 'ms'],
  ['udp64Kpps', 'kpps'],
];

function progressLine(round: number, rounds: number, underlay: Underlay, name: string, measured: Measured): string {
  const figures = SHOWN.map(([metric, unit]) => `${formatMetric(metric, measured[metric]).padStart(6)} ${unit}`);
  return `round ${round + 1}/${rounds}  ${underlay.padEnd(4)}  ${name.padEnd(16)} ${figures.join('  ')}`;
}
