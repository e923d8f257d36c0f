/** How the lab speaks with its relay: one JSON object a line, one answer, over a Unix socket that only we may open. */
import { connect } from 'node:net';
import { codeOf, TulleError } from '../util/errors.ts';
import type { LinkCounts } from './fault-link.ts';
import type { Fault } from './fault-record.ts';

export type RelayRequest =
  | { readonly verb: 'apply'; readonly faults: readonly Fault[] }
  | { readonly verb: 'report' }
  /** Gives all links back and ends. */
  | { readonly verb: 'stop' };

/** What a relay has seen. */
export interface RelayReport {
  /** By the fault's id: frames that it touched. */
  readonly hits: Readonly<Record<string, number>>;
  /** By the node whose link it is. */
  readonly links: Readonly<Record<string, LinkCounts>>;
}

export type RelayAnswer =
  | { readonly ok: true; readonly report: RelayReport }
  | { readonly ok: false; readonly error: string };

const ANSWER_MS = 15_000;
const LONGEST_ANSWER = 1 << 20;

/** @throws TulleError: code `no-relay` when nobody listens, `relay` for what it refuses */
export async function askRelay(path: string, request: RelayRequest): Promise<RelayReport> {
  const answer = await exchange(path, `${JSON.stringify(request)}\n`);
  if (answer.ok) return answer.report;
  throw new TulleError('relay', `the relay of the faults: ${answer.error}`);
}

function exchange(path: string, line: string): Promise<RelayAnswer> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(path);
    const fail = (what: string, code = 'relay'): void => {
      socket.destroy();
      reject(new TulleError(code, `the relay of the faults ${what}`));
    };
    socket.setTimeout(ANSWER_MS, () => fail(`does not answer within ${ANSWER_MS / 1000} s`));
    socket.setEncoding('utf8');
    socket.on('error', error => fail(`cannot be reached (${codeOf(error)})`, 'no-relay'));
    socket.on('data', (piece: string) => {
      text += piece;
      if (text.length > LONGEST_ANSWER) fail('answers too much');
    });
    socket.on('end', () => {
      try {
        resolve(JSON.parse(text) as RelayAnswer);
      } catch {
        fail('ended in the middle of an answer');
      }
    });
    socket.write(line); // half open until it has answered
  });
}
