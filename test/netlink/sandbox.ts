/** Network namespaces for one test file; all of them are gone when it ends. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { openRtnetlink, type Rtnetlink } from '../../lib/netlink/netlink.ts';
import { createNamespace, removeNamespace } from '../../lib/sys/sys.ts';
import { messageOf } from '../../lib/util/errors.ts';

export interface Sandbox {
  directory: string;
  /** path of a new namespace with lo up */
  namespace(name: string): string;
  /** the same, with a socket in it */
  open(name: string): { path: string; netlink: Rtnetlink };
  remove(): void;
}

export function makeSandbox(): Sandbox {
  const directory = mkdtempSync(join(tmpdir(), `tulle-netlink-${process.pid}-`));
  const paths: string[] = [];
  const sockets: Rtnetlink[] = [];
  const namespace = (name: string): string => {
    const path = join(directory, name);
    makeNamespace(path);
    paths.push(path);
    return path;
  };
  return {
    directory,
    namespace,
    open(name) {
      const path = namespace(name);
      const netlink = openRtnetlink(path);
      sockets.push(netlink);
      return { path, netlink };
    },
    remove() {
      for (const socket of sockets) socket.close();
      for (const path of paths) removeNamespace(path);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Why namespace tests cannot run here, said aloud; false when they can. */
export function whyNot(): string | false {
  const directory = mkdtempSync(join(tmpdir(), `tulle-netlink-${process.pid}-`));
  const path = join(directory, 'try');
  try {
    createNamespace(path);
    removeNamespace(path);
    return false;
  } catch (error) {
    const reason = `SKIPPED: no network namespaces here, run as root (${messageOf(error)})`;
    console.error(reason);
    return reason;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
