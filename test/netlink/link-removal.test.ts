import t from 'tap';
import { LinkRemover } from '../../lib/netlink/link-removal.ts';
import type { Rtnetlink } from '../../lib/netlink/netlink.ts';
import { handleCount } from '../../lib/sys/sys.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

const namesIn = (netlink: Rtnetlink): string[] => netlink.links().map(link => link.name);

t.test('the link, its peer and its address are gone when it resolves', { skip }, async t => {
  const { path, netlink } = sandbox.open('here');
  const there = sandbox.open('there');
  const remover = new LinkRemover(netlink, path);
  netlink.createVeth({ name: 'a', peerName: 'eth0', peerNamespace: there.path, up: true, peerUp: true });
  netlink.addAddress('a', '10.0.0.1/24');
  await remover.remove('a');
  t.equal(netlink.link('a'), undefined);
  t.equal(there.netlink.link('eth0'), undefined);
  t.same(netlink.addresses({ family: 4 }), netlink.addresses({ link: 'lo', family: 4 }));
  await remover.remove('a');
  await remover.remove('a name that no link can have');
  t.pass('a missing one is none');
  remover.close();
});

t.test('many at once, and their names can be had again', { skip }, async t => {
  const { path, netlink } = sandbox.open('many');
  const names = Array.from({ length: 100 }, (_, i) => `v${i}`);
  const before = handleCount();
  const remover = new LinkRemover(netlink, path);
  netlink.createVeth({ name: 'stays', peerName: 'pstays' });
  for (let round = 0; round < 2; round++) {
    for (const name of names) netlink.createVeth({ name, peerName: `p${name}` });
    // Some that are missing, and some that are asked for twice.
    await Promise.all([...names, 'nobody', 'v7', 'v99'].map(name => remover.remove(name)));
    t.same(namesIn(netlink).sort(), ['lo', 'pstays', 'stays']);
  }
  remover.close();
  remover.close();
  for (let i = 0; i < 1000 && handleCount() > before; i++) await new Promise(resolve => setTimeout(resolve, 10));
  // Fewer than before: a sender of the test before this one had still to let go then.
  t.ok(handleCount() <= before, 'every sender lets go of the socket in the end');
  await t.rejects(remover.remove('stays'), { code: 'EBADF' });
});

t.test('one after the other while others are under way', { skip }, async t => {
  const { path, netlink } = sandbox.open('stream');
  const remover = new LinkRemover(netlink, path);
  const names = Array.from({ length: 60 }, (_, i) => `v${i}`);
  for (const name of names) netlink.createVeth({ name, peerName: `p${name}` });
  const gone: Promise<void>[] = [];
  for (const name of names) {
    gone.push(remover.remove(name).then(() => void t.equal(netlink.linkIndex(name), undefined, `${name} is gone`)));
    await new Promise(resolve => setImmediate(resolve));
  }
  await Promise.all(gone);
  t.same(namesIn(netlink), ['lo']);
  remover.close();
});

t.test('which index a link has', { skip }, async t => {
  const { netlink } = sandbox.open('index');
  netlink.createVeth({ name: 'fifteen-letters', peerName: 'p' });
  for (const name of ['lo', 'fifteen-letters', 'p']) {
    t.type(netlink.linkIndex(name), 'number');
    t.equal(netlink.linkIndex(name), netlink.link(name)?.index, name);
  }
  for (const name of ['fifteen', '', 'sixteen--letters', 'a b', 'p\0', '..'])
    t.equal(netlink.linkIndex(name), undefined);
  netlink.deleteLink('p');
  t.equal(netlink.linkIndex('fifteen-letters'), undefined);
  netlink.close();
  t.throws(() => netlink.linkIndex('lo'), { code: 'EBADF' });
});

t.test('one that takes the name of a missing one stays', { skip }, async t => {
  const { path, netlink } = sandbox.open('heir');
  const remover = new LinkRemover(netlink, path);
  for (let i = 0; i < 50; i++) {
    if (i % 2 === 1) netlink.createVeth({ name: 'a', peerName: 'b' });
    const gone = remover.remove('a');
    await Promise.resolve(); // the remover has begun
    if (i % 2 === 1) netlink.deleteLink('a'); // as when its namespace ends
    await gone;
    netlink.createVeth({ name: 'a', peerName: 'b' });
    // Deletions are done in their order, or beside each other; so when this one is done, that one is most likely.
    netlink.createVeth({ name: 'x', peerName: 'y' });
    await remover.remove('x');
    t.not(netlink.link('a'), undefined);
    netlink.deleteLink('a');
  }
  remover.close();
});

t.test("the kernel's refusal, alone and in a group", { skip }, async t => {
  const { path, netlink } = sandbox.open('refused');
  const remover = new LinkRemover(netlink, path);
  await t.rejects(remover.remove('lo'), { code: 'EOPNOTSUPP', message: /^delete link lo: EOPNOTSUPP/ });
  const names = ['a', 'b', 'c'];
  for (const name of names) netlink.createVeth({ name, peerName: `p${name}` });
  const outcomes = await Promise.allSettled(['a', 'lo', 'b', 'c'].map(name => remover.remove(name)));
  t.same(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled'],
    'one that cannot be deleted does not keep the others',
  );
  t.same(namesIn(netlink), ['lo']);
  remover.close();
});
