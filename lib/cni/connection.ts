/** One connection of the CNI socket: who is it, its request within a deadline and a bound, the answer. */
import type { Socket } from 'node:net';
import { peerCredentials } from '../sys/sys.ts';
import { CNI_ERROR, CniError } from './plugin.ts';
import { errorAnswer } from './protocol/answer.ts';
import {
  type AnswerFrame,
  decodeRequest,
  encodeAnswer,
  MAX_ANSWER,
  type RequestFrame,
  requestBytes,
  UNTRUSTED,
} from './protocol/frame.ts';
import { newest } from './protocol/request.ts';

/**
 * Resolves when the answer is on its way.
 * @param perform gets a signal that is aborted when the client goes away
 */
export async function converse(
  connection: Socket,
  requestMs: number,
  perform: (frame: RequestFrame, signal: AbortSignal) => Promise<AnswerFrame>,
): Promise<void> {
  const gone = new AbortController();
  let isAnswered = false;
  connection.on('close', () => {
    if (!isAnswered) gone.abort();
  });
  connection.on('error', () => {}); // a 'close' follows
  try {
    checkPeer(connection);
    const frame = await receive(connection, requestMs);
    connection.resume(); // to hear of its end
    const answer = await perform(frame, gone.signal);
    isAnswered = true;
    send(connection, answer);
  } catch (error) {
    send(connection, errorAnswer(error, newest()));
    throw error;
  }
}

function send(connection: Socket, answer: AnswerFrame): void {
  if (connection.destroyed) return;
  const bytes = encodeAnswer(answer);
  if (bytes.length <= MAX_ANSWER) connection.end(bytes);
  else send(connection, errorAnswer(new Error(`the answer has ${bytes.length} bytes`), newest()));
}

/** The socket's mode lets nobody else in already; this holds also where somebody changed that. */
function checkPeer(connection: Socket): void {
  // Node has no name for SO_PEERCRED, but its pipes have shown their descriptor since version 0.x. Should that end, the
  // mode stands alone.
  const { _handle: handle } = connection as unknown as { _handle?: { fd?: unknown } | null };
  if (typeof handle?.fd !== 'number' || handle.fd < 0) return;
  const { uid, pid } = peerCredentials(handle.fd);
  if (uid === 0 || uid === process.geteuid?.()) return;
  throw new CniError(UNTRUSTED, `process ${pid} of user ${uid} may not ask: only root and the user of tulled may`);
}

function receive(connection: Socket, requestMs: number): Promise<RequestFrame> {
  let bytes: Buffer = Buffer.alloc(0);
  let count = 0;
  return new Promise((resolve, reject) => {
    const finish = (end: () => void): void => {
      clearTimeout(timer);
      connection.off('data', onData);
      connection.off('close', onClose);
      end();
    };
    const fail = (why: string): void => finish(() => reject(new CniError(CNI_ERROR.io, why)));
    const timer = setTimeout(() => fail(`the request was not whole within ${requestMs} ms`), requestMs);
    const onClose = (): void => fail('the client went away before its request was whole');
    const onData = (chunk: Buffer): void => {
      // Nearly always the whole request is one chunk; else what is there goes into a buffer of the size that it names.
      if (count === 0) bytes = chunk;
      else if (count + chunk.length <= bytes.length) chunk.copy(bytes, count);
      else bytes = Buffer.concat([bytes.subarray(0, count), chunk]);
      count += chunk.length;
      const wanted = requestBytes(bytes.subarray(0, count));
      if (wanted === undefined) return;
      if (count < wanted) {
        if (bytes.length < wanted) bytes = Buffer.concat([bytes.subarray(0, count)], wanted);
        return;
      }
      const frame = decodeRequest(bytes.subarray(0, count));
      if (frame === undefined) fail('that is not a request of tulle-cni');
      else finish(() => resolve(frame));
    };
    connection.on('data', onData);
    connection.on('close', onClose);
  });
}
