/** Errors of this room: the kernel's errno name as the code, its own words in the message. */
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { TulleError } from '../util/errors.ts';

/** `code` is an errno name such as 'EEXIST'; EBADMSG stands for a malformed message, ETIMEDOUT for no answer. */
export class NetlinkError extends TulleError {
  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(code, message, options);
    this.name = 'NetlinkError';
  }
}

const nameOf = new Map<number, string>(Object.entries(constants.errno).map(([name, number]) => [number, name]));
nameOf.set(constants.errno.EOPNOTSUPP, 'EOPNOTSUPP'); // shares its number with ENOTSUP; this is the kernel's name
nameOf.set(constants.errno.EAGAIN, 'EAGAIN'); // with EWOULDBLOCK

/** The name of a positive errno number, such as 'EEXIST'. */
export const errnoName = (errno: number): string => nameOf.get(errno) ?? `errno ${errno}`;

/**
 * The error for a refused request, e.g. "create veth a: EEXIST (file already exists)".
 * @param operation what was asked for, in words
 * @param errno positive
 * @param text the kernel's extended acknowledgement
 */
export function refusal(operation: string, errno: number, text?: string): NetlinkError {
  const name = errnoName(errno);
  const meaning = getSystemErrorMap().get(-errno)?.[1];
  const details = [meaning, text].filter(detail => detail !== undefined && detail !== '').join(': ');
  return new NetlinkError(name, details === '' ? `${operation}: ${name}` : `${operation}: ${name} (${details})`);
}
