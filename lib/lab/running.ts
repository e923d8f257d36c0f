/** Finds a running lab by its name. */
import { TulleError } from '../util/errors.ts';
import { checkLabName } from './plan.ts';
import { type LabState, loadState, ownerAlive } from './state.ts';

/** @throws TulleError `not-running`, with what to do */
export function runningLab(root: string, name = 'lab'): LabState {
  const state = loadState(root, checkLabName(name));
  if (state !== undefined && ownerAlive(state)) return state;
  const what = state === undefined ? 'is not running' : 'was killed; "tulle lab down" removes what is left of it';
  throw new TulleError('not-running', `the lab "${name}" ${what}; "tulle lab up" starts one`);
}
