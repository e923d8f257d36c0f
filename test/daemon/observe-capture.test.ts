/** What a daemon answers about packets, before it has an overlay, with one, and after. */

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import type { Overlay } from '../../lib/backend/overlay.ts';
import { observeCapture } from '../../lib/daemon/observe-capture.ts';
import type { Observed } from '../../lib/daemon/observed.ts';
import type { CaptureSettings } from '../../lib/datapath/capture-source.ts';
import { ControlRoutes } from '../../lib/observe/control.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { Undo } from '../../lib/util/undo.ts';
import { readPcapng } from '../../lib/wire/pcapng-read.ts';
import { cidr } from '../support/node.ts';
import { leaseOf } from '../support/overlays.ts';

t.test('captures follow the overlay, and end with the daemon', async t => {
  const told: (CaptureSettings | undefined)[] = [];
  const overlay = {
    device: 'tulle0',
    address: '10.88.0.1',
    port: 8285,
    capture: {
      set: (settings: CaptureSettings | undefined) => void told.push(settings),
      drain: () => 0,
      lost: () => 0,
    },
  };
  // Only what the observer looks at.
  const observed = { nodeId: 'node1' } as Observed;
  const [routes, undo] = [new ControlRoutes(), new Undo()];
  observeCapture(observed, routes, undo);
  t.same(routes.list(), ['GET /capture', 'GET /drops', 'GET /packets', 'POST /capture/end']);
  const server = createServer((message, response) => void routes.handle(message, response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  for (const path of ['/capture', '/packets', '/drops']) {
    const early = await fetch(`${base}${path}`);
    t.match([early.status, await early.json()], [503, { code: 'unavailable', error: /no overlay yet/ }]);
  }
  Object.assign(observed, {
    overlay: overlay as unknown as Overlay,
    network: { config: { network: cidr('10.42.0.0/16') } },
    peers: { peers: [leaseOf(2)] },
  });
  const file = await fetch(`${base}/capture?seconds=1&peer=node2`);
  t.equal(file.status, 200);
  t.match(told, [{ snaplen: 256, peers: [cidr('10.42.2.0/24')] }]);
  const bytes = new Uint8Array(await file.arrayBuffer());
  t.match(readPcapng(bytes), { fault: undefined, packets: [], interfaces: [{ name: 'node1:tulle0' }, {}, {}, {}] });
  t.equal(told.at(-1), undefined, 'and nothing is captured any more');

  const open = await fetch(`${base}/packets`);
  t.not(told.at(-1), undefined);
  await undo.run(silentLogger, 1000);
  t.equal(told.at(-1), undefined);
  await open.body?.cancel();
});
