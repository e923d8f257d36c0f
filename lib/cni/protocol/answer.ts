/** What goes back to the client: the bytes for the runtime's stdout, and the exit code. */
import { messageOf } from '../../util/errors.ts';
import { CNI_ERROR, CniError, type CniVersion } from '../plugin.ts';
import type { JsonObject } from './fields.ts';
import type { AnswerFrame } from './frame.ts';

export const EMPTY_ANSWER: AnswerFrame = { exitCode: 0, stdout: '' };

/** Indented as the reference plugins do. */
export function printJson(value: JsonObject): string {
  return `${JSON.stringify(value, null, 4)}\n`;
}

/** Whatever was thrown as CNI's error object; what is no CniError gets libcni's code for "internal". */
export function errorAnswer(error: unknown, version: CniVersion): AnswerFrame {
  const isKnown = error instanceof CniError;
  const message = messageOf(error).replace(/\s*\n\s*/g, ' ');
  return {
    exitCode: 1,
    stdout: printJson({
      cniVersion: version,
      code: isKnown ? error.cniCode : CNI_ERROR.internal,
      msg: message,
      ...(isKnown && error.details !== undefined && { details: error.details }),
    }),
  };
}
