/** Errors of this room: the kernel's errno name as the code, its own words in the message. */
import { errnoName, errnoText } from '../sys/sys.ts';
import { TulleError } from '../util/errors.ts';

/** `code` is an errno name such as 'EEXIST'; EBADMSG stands for a malformed message, ETIMEDOUT for no answer. */
export class NetlinkError extends TulleError {
  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(code, message, options);
    this.name = 'NetlinkError';
  }
}

/**
 * The error for a refused request, e.g. "create veth a: EEXIST (file already exists)".
 * @param operation what was asked for, in words
 * @param errno positive
 * @param text the kernel's extended acknowledgement
 */
export function refusal(operation: string, errno: number, text = ''): NetlinkError {
  const details = text === '' ? errnoText(errno) : `${errnoText(errno)}: ${text}`;
  return new NetlinkError(errnoName(errno), `${operation}: ${errnoName(errno)} (${details})`);
}
