/** What one run of the daemon holds in its hands, passed through the steps of daemon.ts. */
import type { Overlay } from '../backend/overlay.ts';
import type { LeaseJournal } from '../lease/journal-writer.ts';
import type { LeaseManager } from '../lease/manager.ts';
import type { Registry } from '../lease/registry.ts';
import type { Logger } from '../util/log.ts';
import type { Undo } from '../util/undo.ts';
import type { Health } from './health.ts';
import type { Observed } from './observed.ts';
import type { DaemonOptions } from './options.ts';
import type { DaemonParts } from './parts.ts';

export interface Run {
  options: DaemonOptions;
  parts: DaemonParts;
  log: Logger;
  stop: AbortSignal;
  undo: Undo;
  registry: Registry;
  journal: LeaseJournal;
  manager: LeaseManager;
  health: Health;
  /** What those who ask from outside may look at. */
  observed: Observed;
  /** The device of the overlay, as soon as there is one. */
  overlay: Overlay | undefined;
  /** What to do when the overlay's MTU changes, once there is anything to do. */
  onMtu?: () => void;
  /** What to do when letters of the data path are there, and when the peers changed. */
  onMail?: () => void;
  onPeers?: () => void;
  /** Whether the lease goes back at the end. */
  giveBack: boolean;
  /** The start has succeeded. */
  started: boolean;
  /** 'fenced' was said and not yet taken back. */
  fenced: boolean;
  /** 1 is the start; the next ones follow a change of the net-conf. */
  round: number;
}

/** Not ready, and what for; undefined: ready. For the health endpoint and for who asks. */
export function setWaiting(
  { health, observed }: Pick<Run, 'health' | 'observed'>,
  waitingFor: string | undefined,
): void {
  observed.waitingFor = waitingFor;
  if (waitingFor === undefined) health.setReady(true);
  else health.setReady(false, waitingFor);
}
