/** The lab's own process looks after the faults: when their relay was killed, the links are mended and somebody is told. */
import { messageOf } from '../util/errors.ts';
import { mendFaults } from './fault.ts';
import type { LabState } from './state.ts';

const EVERY_MS = 500;

/**
 * Looks now and then until the signal is aborted; `note` is for the person at the terminal. Its timer is also what keeps the
 * lab's process waiting when all daemons have been ended by hand: their handles did so until then.
 */
export function guardFaults(state: LabState, signal: AbortSignal, note: (text: string) => void): void {
  let busy = false;
  const timer = setInterval(() => {
    if (busy) return;
    busy = true;
    look().finally(() => {
      busy = false;
    });
  }, EVERY_MS);
  signal.addEventListener('abort', () => clearInterval(timer));

  async function look(): Promise<void> {
    try {
      const lost = await mendFaults(state);
      if (lost.length > 0 && !signal.aborted)
        note(`the relay of the faults ended: ${lost.map(fault => fault.id).join(', ')} lost, the links are mended`);
    } catch (error) {
      if (!signal.aborted) note(`the faults: ${messageOf(error)}`);
    }
  }
}
