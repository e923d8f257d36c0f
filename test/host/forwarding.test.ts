import t from 'tap';
import { ensureForwarding } from '../../lib/host/forwarding.ts';
import { getSysctl, setSysctl } from '../../lib/host/sysctl.ts';
import { removeNamespace } from '../../lib/sys/sys.ts';
import { makeSandbox, whyNot } from '../netlink/sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());
const IP4 = 'net.ipv4.ip_forward';
const IP6 = 'net.ipv6.conf.all.forwarding';

t.test('on, and back to what it was', { skip }, async t => {
  const path = sandbox.namespace('fwd');
  setSysctl(path, IP4, 0);
  setSysctl(path, IP6, 0);
  const undo = ensureForwarding(path);
  t.same([getSysctl(path, IP4), getSysctl(path, IP6)], ['1', '0']);
  const undoBoth = ensureForwarding(path, { ip6: true });
  t.same([getSysctl(path, IP4), getSysctl(path, IP6)], ['1', '1']);
  undoBoth();
  t.same([getSysctl(path, IP4), getSysctl(path, IP6)], ['1', '0'], 'IPv4 was on before that call');
  undo();
  t.equal(getSysctl(path, IP4), '0');
  setSysctl(path, IP4, 1);
  undo();
  t.equal(getSysctl(path, IP4), '1', 'a second undo does nothing');
});

t.test('the undo of a namespace that is gone', { skip }, async t => {
  const path = sandbox.namespace('gone');
  setSysctl(path, IP4, 0);
  const undo = ensureForwarding(path);
  removeNamespace(path);
  undo();
  t.throws(() => ensureForwarding(path), { code: 'ENOENT' });
});
