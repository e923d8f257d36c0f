/**
 * Makes the data path's worker crash for real: loaded into a tulled before its own code (`NODE_OPTIONS=--import=…`), on SIGUSR2
 * it lets the worker's next turn end in an exception that nobody catches. A worker that sleeps is woken by a packet.
 */
import { syncBuiltinESMExports } from 'node:module';
import threads, { isMainThread, type WorkerOptions, workerData } from 'node:worker_threads';

if (isMainThread) {
  const crash = new Int32Array(new SharedArrayBuffer(4));
  const { Worker } = threads;
  threads.Worker = class extends Worker {
    constructor(program: string | URL, options: WorkerOptions = {}) {
      super(program, { ...options, workerData: { ...options.workerData, crash } });
    }
  };
  syncBuiltinESMExports();
  process.on('SIGUSR2', () => Atomics.store(crash, 0, 1));
} else {
  const { crash } = workerData as { crash: Int32Array };
  const { add, load } = Atomics;
  let isCrashing = false;
  // Every loop counts its turns, and asks whether it is to stop (CONTROL_STOP, 0): one that stops lets the exception out.
  Atomics.add = ((...call: Parameters<typeof add>) => {
    if (Atomics.exchange(crash, 0, 0) === 1) {
      isCrashing = true;
      process.nextTick(() => {
        throw new Error('out of luck');
      });
    }
    return add(...call);
  }) as typeof add;
  Atomics.load = ((...call: Parameters<typeof load>) =>
    isCrashing && call[1] === 0 ? 1 : load(...call)) as typeof load;
}

/** For a tulled that is to have it. */
export const crashable = { NODE_OPTIONS: `--import=${import.meta.url}` };
