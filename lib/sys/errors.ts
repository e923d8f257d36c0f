/** The kernel's errors: numbers to names, names to sentences. */
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { TulleError } from '../util/errors.ts';

// errno.h's names that Node.js does not know, or knows by another name.
const OTHERS: readonly (readonly [number, string, string])[] = [
  [11, 'EAGAIN', 'resource temporarily unavailable'], // EWOULDBLOCK is the same number
  [64, 'ENONET', 'machine is not on the network'],
  [77, 'EBADFD', 'file descriptor in bad state'],
  [87, 'EUSERS', 'too many users'],
  [94, 'ESOCKTNOSUPPORT', 'socket type not supported'],
  [95, 'EOPNOTSUPP', 'operation not supported'], // ENOTSUP is the same number
  [96, 'EPFNOSUPPORT', 'protocol family not supported'],
  [108, 'ESHUTDOWN', 'cannot send after transport endpoint shutdown'],
  [112, 'EHOSTDOWN', 'host is down'],
];

const names = new Map<number, string>();
for (const [name, errno] of Object.entries(constants.errno)) if (!names.has(errno)) names.set(errno, name);
for (const [errno, name] of OTHERS) names.set(errno, name);

/** 'EPERM' for 1 and for -1; 'E1234' for a number without a name. */
export function errnoName(errno: number): string {
  const number = Math.abs(errno);
  return names.get(number) ?? `E${number}`;
}

/** 'operation not permitted' for 1 and for -1; the name where there is no sentence. */
export function errnoText(errno: number): string {
  const number = Math.abs(errno);
  const other = OTHERS.find(([value]) => value === number);
  const known = number < 1000 ? getSystemErrorMap().get(-number) : undefined; // beyond are libuv's own
  return other?.[2] ?? known?.[1] ?? errnoName(number);
}

/**
 * A system call that failed. `code` is the errno's name, `errno` its number (positive), `syscall` the step that failed,
 * and the message one line: "open /dev/net/tun: EACCES (permission denied)".
 */
export class SysError extends TulleError {
  readonly errno: number;
  readonly syscall: string;

  constructor(errno: number, syscall: string, options: { subject?: string; hint?: string; code?: string } = {}) {
    const { subject, hint, code = errnoName(errno) } = options;
    const what = subject === undefined || syscall.includes(subject) ? syscall : `${syscall} ${subject}`;
    super(code, `${what}: ${code} (${errnoText(errno)})${hint === undefined ? '' : `: ${hint}`}`);
    this.name = 'SysError';
    this.errno = Math.abs(errno);
    this.syscall = syscall;
  }
}
