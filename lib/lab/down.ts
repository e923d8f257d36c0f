/** `tulle lab down`: ends a running lab, or removes what a killed one left behind. */
import { setTimeout as delay } from 'node:timers/promises';
import { TulleError } from '../util/errors.ts';
import { endProcesses } from './process.ts';
import * as store from './state.ts';
import { hasRemains, tearDown } from './teardown.ts';

/** The lab needs some seconds when daemons do not answer; after this it is not asked any more. */
const OWNER_MS = 20_000;
const LOCK_MS = 5000;

/** False when there was nothing to end. */
export async function down(root: string, name: string): Promise<boolean> {
  if (!hasRemains(root, name)) {
    store.dropStaleLock(root, name);
    store.removeStateRoot(root);
    return false;
  }
  const state = store.loadState(root, name);
  if (state !== undefined && store.ownerAlive(state)) await endProcesses([state.record.owner], OWNER_MS);

  // The lab took itself down, or it died: the lock is free in both cases, unless a new lab has begun meanwhile.
  const deadline = performance.now() + LOCK_MS;
  let lock = hasRemains(root, name) ? store.takeLock(root, name) : undefined;
  while (lock === undefined && hasRemains(root, name)) {
    if (performance.now() > deadline)
      throw new TulleError('running', `another process is at work on the lab "${name}": try again`);
    await delay(20);
    lock = store.takeLock(root, name);
  }
  if (lock === undefined) return true;
  try {
    await tearDown(root, name);
  } finally {
    store.releaseLock(root, name, lock);
    store.removeStateRoot(root);
  }
  return true;
}
