// An etcd server for the lab and the tests: found, or fetched from Debian's archive (fetch-debian.mjs says how and why).
import { pathToFileURL } from 'node:url';
import { fetchDebian } from './fetch-debian.mjs';

/** Finds etcd, or fetches it; the path of the program, or undefined with the reason on stderr. Places as findEtcd in etcd/server.ts. */
export function ensureEtcd() {
  const { path, reason } = fetchDebian({ package: 'etcd-server', program: 'etcd', folder: 'etcd' });
  if (path === undefined) process.stderr.write(`tulle: ${reason}: the tests and labs with etcd need 3.4 or newer\n`);
  return path;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const path = ensureEtcd();
  if (path === undefined) process.exitCode = 1;
  else console.log(path);
}
