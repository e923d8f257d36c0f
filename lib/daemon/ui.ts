/**
 * `--ui`: the live page of this daemon. Its token is made once a process, told once, and never logged: a terminal is told, and where
 * stderr goes into a journal, a file beside the control socket that only we may read.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { DaemonSource } from '../observe/page-daemon.ts';
import { newToken } from '../observe/page-guard.ts';
import { TulleError } from '../util/errors.ts';
import type { Undo } from '../util/undo.ts';
import type { Observed } from './observed.ts';

/** One for all rounds of a process, so that an open page lives through a change of the net-conf. */
let token: string | undefined;

/** Where the address of the page is, for a control socket "…/tulled.sock": "…/tulled.url". */
export const uiFile = (socket: string): string => `${socket.replace(/\.sock$/, '')}.url`;

/**
 * Starts the server, if the options ask for one. `isAsked`: the control socket is ours, and not another daemon's.
 * @throws TulleError 'bad-option', 'bad-page', 'no-page'
 */
export async function openUi(observed: Observed, undo: Undo, isAsked: boolean): Promise<void> {
  const { ui, control, journalFile } = observed.options;
  if (ui === undefined) return;
  if (control === undefined) throw new TulleError('bad-option', '--ui shows what the control socket tells: give one');
  if (!isAsked) {
    const why = `--ui shows what the control socket tells, and ${control.socket} is not this daemon's`;
    throw new TulleError('bad-option', `${why}: give it one of its own with --control-socket`);
  }
  const isFirst = token === undefined;
  token ??= newToken();
  const source = new DaemonSource({ socket: control.socket, journalFile, name: () => observed.nodeId });
  const server = await observed.parts.startPageServer({ ...ui, source, token });
  undo.push('the page', () => server.close());
  if (process.stderr.isTTY) {
    if (isFirst) process.stderr.write(`The microscope, for your browser: ${server.url}\n`);
    return;
  }
  const file = uiFile(control.socket);
  rmSync(file, { force: true }); // never through what somebody left there
  writeFileSync(file, `${server.url}\n`, { mode: 0o600, flag: 'wx' });
  undo.push('the address of the page', () => rmSync(file, { force: true }));
  if (isFirst) process.stderr.write(`The microscope: its address, with the token, is in ${file}\n`);
}
