/** The ladder of transports, measured while the lab stands: the daemons are replaced, the pods and their leases stay. */
import { setTimeout as delay } from 'node:timers/promises';
import type { MeasureView } from '../observe/microscope/model.ts';
import { messageOf } from '../util/errors.ts';
import { type End, measureTcp, waitForPaths } from './measure.ts';
import { readCounts } from './page-links.ts';
import type { LabTransport } from './plan.ts';

/** From the plainest to the fastest. */
export const LADDER: readonly LabTransport[] = ['dgram', 'batch', 'offload'];
const SAMPLE_MS = 250;

export interface Ladder {
  pods: readonly [near: End, far: End];
  /** The same without an overlay. */
  bare: readonly [near: End, far: End];
  /** What the lab was started with, and is left with. */
  transport: LabTransport;
  /** Of each measurement. */
  seconds: number;
  replace(transport: LabTransport): Promise<void>;
  publish(view: MeasureView): void;
  signal: AbortSignal;
}

/** Rejects when the lab could not be brought back to its own transport. */
export async function climbLadder({
  pods,
  bare,
  transport: own,
  seconds,
  replace,
  publish,
  signal,
}: Ladder): Promise<void> {
  const [near, far] = pods;
  const view: MeasureView = { running: true, note: '', from: near.name, to: far.name, runs: [] };
  const tell = (note: string, running = true): void => publish({ ...view, note, running });
  let current: LabTransport | undefined = own;
  const use = async (transport: LabTransport): Promise<void> => {
    if (transport === current) return;
    current = undefined;
    await replace(transport);
    await waitForPaths(near, [far]);
    current = transport;
  };
  let trouble = '';
  try {
    for (const transport of LADDER) {
      signal.throwIfAborted();
      tell(`tulled again, with transport ${transport}`);
      await use(transport);
      await run(transport, near, far);
    }
    await run('underlay', bare[0], bare[1]);
  } catch (error) {
    trouble = messageOf(error);
  }
  if (signal.aborted) return;
  try {
    await use(own);
    tell(trouble === '' ? `done; the lab runs on ${own} again` : trouble, false);
  } catch (error) {
    tell(messageOf(error), false);
    throw error;
  }

  async function run(transport: string, from: End, to: End): Promise<void> {
    const entry: MeasureView['runs'][number] = { transport, gbps: null, samples: [] };
    view.runs.push(entry);
    tell(`one TCP stream on ${transport}, ${seconds} s`);
    const watch = new AbortController();
    const watching = sample(to, watch.signal, (after, gbps) => {
      entry.samples.push({ seconds: after, gbps });
      tell(`one TCP stream on ${transport}, ${seconds} s`);
    });
    try {
      entry.gbps = (await measureTcp(from, to, { seconds })).gbps;
    } finally {
      watch.abort();
      await watching;
    }
  }
}

/** What the receiver's eth0 receives, now and then. */
async function sample(
  { namespaceFile }: End,
  signal: AbortSignal,
  take: (seconds: number, gbps: number) => void,
): Promise<void> {
  const bytes = (): number => readCounts(namespaceFile).get('eth0')?.receivedBytes ?? 0;
  const start = performance.now();
  let [at, before] = [start, bytes()];
  while (!signal.aborted) {
    await delay(SAMPLE_MS, undefined, { signal }).catch(() => {});
    const [now, count] = [performance.now(), bytes()];
    if (now - at < SAMPLE_MS / 2) continue;
    const gbps = ((count - before) * 8) / 1e6 / (now - at);
    // Before the stream begins, and after its end, there is nothing to tell.
    if (gbps > 0.001) take(Math.round((now - start) / 100) / 10, Math.round(gbps * 1000) / 1000);
    [at, before] = [now, count];
  }
}
