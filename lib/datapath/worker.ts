/** The data path's thread: opens the slab that the main thread made, runs a loop over it, says how it ended. */
import { parentPort, workerData } from 'node:worker_threads';
import { codeOf, messageOf } from '../util/errors.ts';
import { runBatchLoop } from './batch-loop.ts';
import { runDgramLoop } from './dgram-loop.ts';
import { LoopFault, type WorkerInput, type WorkerMessage } from './loop.ts';
import { openSlab } from './slab.ts';

const input = workerData as WorkerInput;
const say = (message: WorkerMessage): void => parentPort?.postMessage(message);
const context = { slab: openSlab(input.subnetCount, input.subnetCount6, input.buffer), input, say };

try {
  if (input.transport === 'dgram') await runDgramLoop(context);
  else runBatchLoop(context);
} catch (error) {
  const where = error instanceof LoopFault ? error.where : 'underlay';
  say({ kind: 'fault', where, code: codeOf(error) ?? 'EIO', message: messageOf(error) });
}
