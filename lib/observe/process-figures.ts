/** What the process uses: memory, processor, descriptors, and how late its event loop is. */
import { readdirSync, readFileSync } from 'node:fs';
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';

export interface ProcessFigures {
  startedAtSeconds: number;
  cpuSeconds: number;
  residentBytes: number;
  heapUsedBytes: number;
  heapTotalBytes: number;
  externalBytes: number;
  openFiles: number | undefined;
  mostFiles: number | undefined;
  /** Since the last call: the mean of how late the loop was, and the most. */
  loopLagSeconds: number;
  worstLoopLagSeconds: number;
}

const RESOLUTION_MS = 20;

export class ProcessMeter {
  readonly #startedAtSeconds = Date.now() / 1000 - process.uptime();
  readonly #delay: IntervalHistogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  #worst = 0;

  constructor() {
    this.#delay.enable();
  }

  read(): ProcessFigures {
    const { user, system } = process.cpuUsage();
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
    // The histogram's values contain the timer's own interval, in nanoseconds.
    const late = (nanoseconds: number): number => Math.max(0, (nanoseconds || 0) / 1e9 - RESOLUTION_MS / 1000);
    const loopLagSeconds = this.#delay.count === 0 ? 0 : late(this.#delay.mean);
    this.#worst = this.#delay.count === 0 ? 0 : late(this.#delay.max);
    this.#delay.reset();
    return {
      startedAtSeconds: this.#startedAtSeconds,
      cpuSeconds: (user + system) / 1e6,
      residentBytes: rss,
      heapUsedBytes: heapUsed,
      heapTotalBytes: heapTotal,
      externalBytes: external,
      openFiles: countFiles(),
      mostFiles: fileLimit(),
      loopLagSeconds,
      worstLoopLagSeconds: this.#worst,
    };
  }

  close(): void {
    this.#delay.disable();
  }
}

function countFiles(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return undefined; // no /proc
  }
}

function fileLimit(): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
