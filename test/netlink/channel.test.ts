import t from 'tap';
import { listAddressesMessage, parseAddressMessage } from '../../lib/netlink/address.ts';
import { Channel } from '../../lib/netlink/channel.ts';
import { listLinksMessage, parseLink } from '../../lib/netlink/link.ts';
import { MessageBuilder, NLM_F_ACK, NLM_F_REQUEST, NLMSG_NOOP } from '../../lib/netlink/message.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

t.test('silence is an error, not a hang, and the channel goes on', { skip }, async t => {
  const channel = new Channel(sandbox.namespace('silence'), 60);
  t.throws(() => channel.request('say nothing', new MessageBuilder(NLMSG_NOOP, NLM_F_REQUEST)), {
    code: 'ETIMEDOUT',
    message: 'say nothing: no answer from the kernel in 0.06 s',
  });
  channel.request('say something', new MessageBuilder(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK));
  t.equal(channel.dump('list links', listLinksMessage(), message => parseLink(message.payload)).length, 1);
  channel.close();
});

t.test('a dump that was left half read does not get in the way', { skip }, async t => {
  const { path, netlink } = sandbox.open('half');
  for (let index = 1; index <= 800; index++) netlink.addAddress('lo', `10.0.${index >> 8}.${index & 255}/32`);
  const channel = new Channel(path);
  const list = (): number =>
    channel.dump('list addresses', listAddressesMessage(0), message => parseAddressMessage(message.payload)).length;
  const expected = list();
  t.ok(expected >= 801, `${expected} addresses`);
  for (let time = 0; time < 3; time++) {
    t.throws(
      () =>
        channel.dump('list addresses', listAddressesMessage(0), () => {
          throw new Error('the reader gave up');
        }),
      { message: 'the reader gave up' },
    );
    t.equal(list(), expected);
  }
  // One builder may be sent again: the sequence number is stamped each time.
  const builder = listAddressesMessage(0);
  const count = (): number => channel.dump('list addresses', builder, () => 1).length;
  t.equal(count(), expected);
  t.equal(count(), expected);
  channel.close();
});

t.test('an unknown request and an unknown namespace', { skip }, async t => {
  const channel = new Channel(sandbox.namespace('unknown'));
  t.throws(() => channel.request('ask nonsense', new MessageBuilder(9999, NLM_F_REQUEST | NLM_F_ACK)), {
    code: 'EOPNOTSUPP',
    message: /^ask nonsense: EOPNOTSUPP \(/,
  });
  channel.close();
  t.throws(() => new Channel('/nowhere/at/all'), { code: 'ENOENT', message: /\/nowhere\/at\/all/ });
});
