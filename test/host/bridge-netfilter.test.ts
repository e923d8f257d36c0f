import { existsSync } from 'node:fs';
import t from 'tap';
import { BRIDGE_NETFILTER, ensureBridgeNetfilter } from '../../lib/host/bridge-netfilter.ts';
import { getSysctl, setSysctl } from '../../lib/host/sysctl.ts';
import { makeSandbox, whyNot } from '../netlink/sandbox.ts';

const skip = whyNot() || (!existsSync('/proc/sys/net/bridge') && 'SKIPPED: br_netfilter is not loaded');
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

t.test('on, for the families that are named', { skip }, async t => {
  const path = sandbox.namespace('filter');
  const both = (): string[] => Object.values(BRIDGE_NETFILTER).map(key => getSysctl(path, key));
  for (const key of Object.values(BRIDGE_NETFILTER)) setSysctl(path, key, 0);
  ensureBridgeNetfilter(path, []);
  t.same(both(), ['0', '0']);
  ensureBridgeNetfilter(path, [4]);
  t.same(both(), ['1', '0']);
  ensureBridgeNetfilter(path, [4, 6]);
  t.same(both(), ['1', '1']);
});
