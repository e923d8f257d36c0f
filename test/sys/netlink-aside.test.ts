import t from 'tap';
import { getLinkMessage } from '../../lib/netlink/link.ts';
import {
  close,
  netlinkExchange,
  netlinkReceive,
  netlinkSendAside,
  openEventFd,
  openNetlink,
} from '../../lib/sys/sys.ts';

t.test('what is sent aside is answered', async t => {
  const handle = openNetlink({ protocol: 0 });
  const message = getLinkMessage('lo').finish(7);
  netlinkSendAside(handle, message);
  message.fill(0xff); // it has a copy
  const buffer = new Uint8Array(32 * 1024);
  const bytes = netlinkReceive(handle, buffer, 5000);
  t.ok(bytes > 16);
  t.equal(new DataView(buffer.buffer).getUint32(8, true), 7, 'the answer to our sequence number');
  close(handle);
  t.throws(() => netlinkSendAside(handle, message), { code: 'EBADF' });
});

t.test('what could not be sent is told once, by a receive', async t => {
  const handle = openNetlink({ protocol: 0 });
  const buffer = new Uint8Array(32 * 1024);
  netlinkSendAside(handle, new Uint8Array(16 << 20)); // more than a socket's buffer
  t.throws(() => netlinkReceive(handle, buffer, 10_000), { code: 'EMSGSIZE', syscall: 'sendto AF_NETLINK' });
  t.equal(netlinkReceive(handle, buffer, 0), 0);
  netlinkSendAside(handle, getLinkMessage('lo').finish(1));
  t.ok(netlinkReceive(handle, buffer, 10_000) > 16, 'and the socket is as good as before');
  close(handle);
});

t.test('closed at once: it is sent all the same, and nothing breaks', async t => {
  for (let i = 0; i < 200; i++) {
    const handle = openNetlink({ protocol: 0 });
    netlinkSendAside(handle, getLinkMessage('lo').finish(i));
    close(handle);
  }
  t.pass();
});

t.test('another kind of handle, and nonsense', async t => {
  const event = openEventFd();
  t.throws(() => netlinkSendAside(event, new Uint8Array(16)), { code: 'EINVAL' });
  close(event);
  t.throws(() => netlinkSendAside(0, new Uint8Array(16)), { code: 'EBADF' });
  const handle = openNetlink({ protocol: 0 });
  netlinkSendAside(handle, new Uint8Array(0));
  netlinkSendAside(handle, Uint8Array.of(1, 2, 3));
  close(handle);
});

t.test('one after the other, and many at once', async t => {
  const buffer = new Uint8Array(32 * 1024);
  const handle = openNetlink({ protocol: 0 });
  const seen = new Set<number>();
  const receive = (): void => {
    const bytes = netlinkReceive(handle, buffer, 5000);
    const view = new DataView(buffer.buffer, 0, bytes);
    for (let at = 0; at < bytes; at += (view.getUint32(at, true) + 3) & ~3) seen.add(view.getUint32(at + 8, true));
  };
  for (let i = 1; i <= 20; i++) {
    netlinkSendAside(handle, getLinkMessage('lo').finish(i));
    for (const deadline = Date.now() + 10_000; !seen.has(i) && Date.now() < deadline; ) receive();
  }
  for (let i = 21; i <= 60; i++) netlinkSendAside(handle, getLinkMessage('lo').finish(i));
  for (const deadline = Date.now() + 20_000; seen.size < 60 && Date.now() < deadline; ) receive();
  t.equal(seen.size, 60);
  close(handle);
});

t.test('an exchange gives all answers in one piece, or as many as fit', async t => {
  const handle = openNetlink({ protocol: 0 });
  const messages = [1, 2, 3].map(sequence => Buffer.from(getLinkMessage('lo').finish(sequence)));
  const sequencesOf = (bytes: Uint8Array): number[] => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const found: number[] = [];
    for (let at = 0; at < bytes.length; at += (view.getUint32(at, true) + 3) & ~3) {
      found.push(view.getUint32(at + 8, true));
    }
    return found;
  };
  const large = new Uint8Array(64 * 1024);
  t.same(
    sequencesOf(large.subarray(0, netlinkExchange(handle, Buffer.concat(messages), large))),
    [1, 1, 2, 2, 3, 3],
    'a link and an acknowledgement for each',
  );
  // Room for one datagram of the kernel's: the rest is there for a receive.
  const small = new Uint8Array(32 * 1024);
  const first = sequencesOf(small.subarray(0, netlinkExchange(handle, messages[0], small)));
  t.same(first, [1]);
  t.same(sequencesOf(small.subarray(0, netlinkReceive(handle, small, 1000))), [1]);
  t.throws(() => netlinkExchange(handle, messages[0], new Uint8Array(40)), { code: 'EMSGSIZE' });
  t.equal(netlinkExchange(handle, messages[0], new Uint8Array(0)), 0);
  close(handle);
  t.throws(() => netlinkExchange(handle, messages[0], large), { code: 'EBADF' });
});
