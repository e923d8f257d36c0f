import t from 'tap';
import { removeLink } from '../../lib/netlink/link-removal.ts';
import { handleCount } from '../../lib/sys/sys.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

t.test('the link, its peer and its address are gone when it resolves', { skip }, async t => {
  const { path, netlink } = sandbox.open('here');
  const there = sandbox.open('there');
  netlink.createVeth({ name: 'a', peerName: 'eth0', peerNamespace: there.path, up: true, peerUp: true });
  netlink.addAddress('a', '10.0.0.1/24');
  await removeLink(netlink, path, 'a');
  t.equal(netlink.link('a'), undefined);
  t.equal(there.netlink.link('eth0'), undefined);
  t.same(netlink.addresses({ family: 4 }), netlink.addresses({ link: 'lo', family: 4 }));
  await removeLink(netlink, path, 'a');
  await removeLink(netlink, path, 'a name that no link can have');
  t.pass('a missing one is none');
});

t.test('many at once, and their names can be had again', { skip }, async t => {
  const { path, netlink } = sandbox.open('many');
  const names = Array.from({ length: 40 }, (_, i) => `v${i}`);
  const before = handleCount();
  for (let round = 0; round < 2; round++) {
    for (const name of names) netlink.createVeth({ name, peerName: `p${name}` });
    await Promise.all(names.map(name => removeLink(netlink, path, name)));
    t.same(
      netlink.links().map(link => link.name),
      ['lo'],
    );
  }
  for (let i = 0; i < 1000 && handleCount() > before; i++) await new Promise(resolve => setTimeout(resolve, 10));
  // Fewer than before: a sender of the test before this one had still to let go then.
  t.ok(handleCount() <= before, 'every sender lets go of its socket in the end');
});

t.test("the kernel's refusal", { skip }, async t => {
  const { path, netlink } = sandbox.open('refused');
  await t.rejects(removeLink(netlink, path, 'lo'), { code: 'EOPNOTSUPP', message: /^delete link lo: EOPNOTSUPP/ });
});
