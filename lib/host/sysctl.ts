/** Kernel settings below /proc/sys. Those below net/ belong to a network namespace: that of the thread that opens the file. */
import { readFileSync, writeFileSync } from 'node:fs';
import { withNamespace } from '../sys/sys.ts';
import { codeOf, TulleError } from '../util/errors.ts';

/**
 * "net.ipv4.ip_forward" to its file. As with sysctl(8), a key that has a "/" takes it as the separator, so that a
 * link's name may hold dots: "net/ipv4/conf/eth0.100/forwarding".
 */
export function sysctlPath(key: string): string {
  const parts = key.includes('/') ? key.split('/') : key.split('.');
  if (parts.some(part => part === '' || part === '.' || part === '..' || /[\s\0]/.test(part))) {
    throw new TulleError('EINVAL', `"${key}" is not a kernel setting such as net.ipv4.ip_forward`);
  }
  return `/proc/sys/${parts.join('/')}`;
}

function at<T>(namespace: string | undefined, operation: string, action: () => T): T {
  try {
    return namespace === undefined ? action() : withNamespace(namespace, action);
  } catch (cause) {
    if (cause instanceof TulleError) throw cause;
    const code = codeOf(cause) ?? 'EIO';
    const hint =
      code === 'ENOENT' ? 'this kernel does not have it' : code === 'EROFS' ? '/proc/sys is read-only here' : '';
    throw new TulleError(code, `${operation}: ${code}${hint === '' ? '' : ` (${hint})`}`, { cause });
  }
}

/** The value without its line feed. `namespace` is a path; undefined is the calling thread's own. */
export function getSysctl(namespace: string | undefined, key: string): string {
  const path = sysctlPath(key);
  return at(namespace, `read sysctl ${key}`, () => readFileSync(path, 'latin1').trimEnd());
}

/** Writes only when the value differs, so a read-only /proc/sys that is right already will do. Returns the value before. */
export function setSysctl(namespace: string | undefined, key: string, value: string | number): string {
  const before = getSysctl(namespace, key);
  const path = sysctlPath(key);
  const text = String(value);
  if (before !== text) at(namespace, `set sysctl ${key}=${text}`, () => writeSetting(path, text));
  return before;
}

/**
 * A container's /proc/sys is read-only unless it is privileged; one that may write is given the host's /proc/sys/net here
 * (deploy/tulle.yml). Whose settings are found there is decided as in /proc/sys: by the namespace of who looks.
 */
const HOST_ROOT = '/host';

/** Writes a file below /proc/sys. @throws Node's system error */
export function writeSetting(path: string, value: string): void {
  try {
    writeFileSync(path, value);
  } catch (error) {
    if (codeOf(error) !== 'EROFS') throw error;
    try {
      writeFileSync(HOST_ROOT + path, value);
    } catch {
      throw error; // what is wrong is that the first one is read-only
    }
  }
}
