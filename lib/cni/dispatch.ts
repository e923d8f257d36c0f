/** One call from its frame to its answer: read, wait for its turn, do, print. Never throws. */
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { CNI_ERROR, type CniCommand, CniError, type CniPlugin, type CniRequest } from './plugin.ts';
import { EMPTY_ANSWER, errorAnswer, printJson } from './protocol/answer.ts';
import type { AnswerFrame, RequestFrame } from './protocol/frame.ts';
import { openFrame, printVersions, readRequest, versionOf } from './protocol/request.ts';
import { printResult } from './protocol/result.ts';
import type { Schedule } from './schedule.ts';

export interface Dispatcher {
  plugin: CniPlugin;
  schedule: Schedule;
  log: Logger;
  /** Called in the container's turn, before an ADD and after a DEL: what was written down about its past is void now. */
  forget?(request: CniRequest): void;
  /** Called after each call, with the code of its error or 0. */
  onDone?: OnCallDone;
}

/** What was asked as it was sent (undefined: nothing), the CNI code it ended with (0: well), and how long it took. */
export type OnCallDone = (command: string | undefined, code: number, ms: number) => void;

/**
 * @param signal aborted when nobody waits for the answer any more: an ADD is undone then
 * @param isWanted asked when a DEL's turn has come; false lets it succeed without doing anything
 */
export async function dispatch(
  dispatcher: Dispatcher,
  frame: RequestFrame,
  signal: AbortSignal,
  isWanted: () => boolean = () => true,
): Promise<AnswerFrame> {
  const begin = performance.now();
  let request: CniRequest | undefined;
  const done = (code: number): void =>
    dispatcher.onDone?.(frame.environment.get('CNI_COMMAND'), code, performance.now() - begin);
  try {
    const opened = openFrame(frame);
    if (opened.command === 'VERSION') {
      const answer = { exitCode: 0, stdout: printJson(printVersions(frame.input)) };
      done(0);
      return answer;
    }
    request = readRequest({ ...opened, command: opened.command }, signal);
    const answer = await inTurn(dispatcher, request, isWanted);
    done(0);
    dispatcher.log.debug({ ...describe(request), ms: performance.now() - begin }, 'cni call done');
    return answer;
  } catch (error) {
    done(error instanceof CniError ? error.cniCode : CNI_ERROR.internal);
    logFailure(dispatcher.log, frame, request, error);
    return errorAnswer(error, versionOf(frame.input));
  }
}

async function inTurn(dispatcher: Dispatcher, request: CniRequest, isWanted: () => boolean): Promise<AnswerFrame> {
  const { plugin, schedule } = dispatcher;
  const { name } = request.config;
  switch (request.command) {
    case 'ADD':
      return schedule.run(name, request.containerId, () => add(dispatcher, request));
    case 'DEL':
      return empty(schedule.run(name, request.containerId, async () => isWanted() && (await del(dispatcher, request))));
    case 'CHECK':
      return empty(schedule.run(name, request.containerId, () => plugin.check(request)));
    case 'GC':
      return empty(schedule.run(name, undefined, () => plugin.gc(request)));
    case 'STATUS':
      // It changes nothing and must answer while an ADD hangs.
      return empty(plugin.status(request));
  }
}

async function empty(work: Promise<unknown>): Promise<AnswerFrame> {
  await work;
  return EMPTY_ANSWER;
}

async function del({ plugin, forget }: Dispatcher, request: CniRequest): Promise<void> {
  await plugin.del(request);
  forget?.(request);
}

/** An attachment whose result cannot be handed over is taken back: the runtime knows nothing of it. */
async function add(dispatcher: Dispatcher, request: CniRequest): Promise<AnswerFrame> {
  request.signal.throwIfAborted();
  dispatcher.forget?.(request);
  const result = await dispatcher.plugin.add(request);
  try {
    const stdout = printJson(printResult(result, request.config.cniVersion));
    request.signal.throwIfAborted();
    return { exitCode: 0, stdout };
  } catch (error) {
    await dispatcher.plugin.del({ ...request, command: 'DEL' });
    throw error;
  }
}

function describe({ command, config, containerId, ifname }: CniRequest): object {
  return { command, network: config.name, ...(containerId !== '' && { container: containerId, ifname }) };
}

/** What a runtime asks wrongly is its own business (debug); what did not work is the operator's; a bug shows its stack. */
function logFailure(log: Logger, frame: RequestFrame, request: CniRequest | undefined, error: unknown): void {
  const command = frame.environment.get('CNI_COMMAND') as CniCommand | undefined;
  const fields = request === undefined ? { command } : describe(request);
  if (request === undefined) log.debug({ ...fields, error: messageOf(error) }, 'cni call refused');
  else if (request.signal.aborted) log.warn({ ...fields }, 'cni call given up: its caller is gone');
  else if (error instanceof CniError)
    log.warn({ ...fields, code: error.cniCode, error: error.message }, 'cni call failed');
  else log.error({ ...fields, error }, 'cni call failed');
}
