/** What the CNI socket was asked, how it ended and how long it took; a closed set of names, whatever clients send. */
import { Histogram } from './histogram.ts';

export const CNI_COMMANDS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const;
/** Of the codes above 100, which are a plugin's own, there may be any number. */
const HIGHEST_CODE = 130;
const OTHER = 'other';

export class CniMeter {
  /** By command. */
  readonly latency = new Map<string, Histogram>();
  /** "ADD 0" → how often; 0 is success, else the code of the CNI error. */
  readonly results = new Map<string, number>();

  done(command: string | undefined, code: number, ms: number): void {
    const name = CNI_COMMANDS.find(known => known === command) ?? OTHER;
    const key = `${name} ${Number.isInteger(code) && code >= 0 && (code <= HIGHEST_CODE || code === 999) ? code : OTHER}`;
    this.results.set(key, (this.results.get(key) ?? 0) + 1);
    let histogram = this.latency.get(name);
    if (histogram === undefined) {
      histogram = new Histogram();
      this.latency.set(name, histogram);
    }
    histogram.observe(ms / 1000);
  }
}
