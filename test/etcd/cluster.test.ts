// Three members in namespaces of their own: see cluster-inside.ts. The test runs in a fourth namespace, the hub, so that
// its ordinary sockets reach them; this file only makes the hub and starts it there.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';

const folder = mkdtempSync(join(tmpdir(), `tulle-etcd-cluster-${process.pid}-`));
const hub = join(folder, 'hub');
const inside = fileURLToPath(new URL('cluster-inside.js', import.meta.url));

if (process.getuid?.() !== 0) {
  console.log('TAP version 14\n1..0 # SKIP needs root to make network namespaces\n# { total: 0, pass: 0, skip: 1 }');
  rmSync(folder, { recursive: true });
} else {
  makeNamespace(hub);
  const child = withNamespace(hub, () =>
    spawn(process.execPath, ['--enable-source-maps', inside, folder], { stdio: 'inherit' }),
  );
  process.exitCode = await new Promise<number>(done => child.once('exit', code => done(code ?? 1)));
  removeNamespace(hub);
  rmSync(folder, { recursive: true, force: true });
}
