/** `--ui`: the live page of this daemon. Its token is made once a process, told once, and never logged. */
import { DaemonSource } from '../observe/page-daemon.ts';
import { newToken } from '../observe/page-guard.ts';
import { TulleError } from '../util/errors.ts';
import type { Undo } from '../util/undo.ts';
import type { Observed } from './observed.ts';

/** One for all rounds of a process, so that an open page lives through a change of the net-conf. */
let token: string | undefined;

/** Starts the server, if the options ask for one. @throws TulleError 'bad-page', 'no-page' */
export async function openUi(observed: Observed, undo: Undo): Promise<void> {
  const { ui, control, journalFile } = observed.options;
  if (ui === undefined) return;
  if (control === undefined) throw new TulleError('bad-option', '--ui shows what the control socket tells: give one');
  const isFirst = token === undefined;
  token ??= newToken();
  const source = new DaemonSource({ socket: control.socket, journalFile, name: () => observed.nodeId });
  const server = await observed.parts.startPageServer({ ...ui, source, token });
  undo.push('the page', () => server.close());
  // Not by the log, which is kept and sent to other machines.
  if (isFirst) process.stderr.write(`The microscope, for your browser: ${server.url}\n`);
}
