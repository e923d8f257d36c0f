// A plugin that attaches nothing: it keeps what it was asked, in order, and answers what a test says.
import type { CniPlugin, CniRequest, CniResult } from '../../lib/cni/plugin.ts';

export interface FakePlugin extends CniPlugin {
  calls: CniRequest[];
  /** "ADD a eth0" of every call. */
  log(): string[];
  /** Called in every call before it answers; may throw or wait. */
  before: (request: CniRequest) => void | Promise<void>;
  result: CniResult;
}

export const twoFamilies: CniResult = {
  interfaces: [
    { name: 'cni0', mac: '02:00:00:00:00:01', mtu: 1460 },
    { name: 'veth1', mac: '02:00:00:00:00:02', mtu: 1460 },
    { name: 'eth0', mac: '02:00:00:00:00:03', mtu: 1460, sandbox: '/run/netns/pod' },
  ],
  ips: [
    { address: '10.5.1.2/24', gateway: '10.5.1.1', interface: 2 },
    { address: 'fd00::2/64', gateway: 'fd00::1', interface: 2 },
    { address: '10.6.1.2/24', interface: 2 },
  ],
  routes: [
    { dst: '0.0.0.0/0', gw: '10.5.1.1', mtu: 1400, advmss: 1360, priority: 5, table: 254, scope: 0 },
    { dst: '::/0', gw: 'fd00::1' },
    { dst: '10.7.0.0/16' },
  ],
  dns: { nameservers: ['10.96.0.10'], domain: 'cluster.local', search: ['svc.cluster.local'], options: ['ndots:5'] },
};

export function fakePlugin(): FakePlugin {
  const calls: CniRequest[] = [];
  const call = async (request: CniRequest): Promise<void> => {
    calls.push(request);
    await plugin.before(request);
  };
  const plugin: FakePlugin = {
    calls,
    log: () => calls.map(({ command, containerId, ifname }) => `${command} ${containerId} ${ifname}`.trim()),
    before: () => {},
    result: twoFamilies,
    add: async request => {
      await call(request);
      return plugin.result;
    },
    del: call,
    check: call,
    gc: call,
    status: call,
  };
  return plugin;
}

export function deferred(): { promise: Promise<void>; resolve(): void } {
  let resolve = (): void => {};
  const promise = new Promise<void>(done => {
    resolve = done;
  });
  return { promise, resolve };
}

/** Until `condition` holds; fails after 20 s. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`after 20 s still not: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}
