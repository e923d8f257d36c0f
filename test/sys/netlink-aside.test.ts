import t from 'tap';
import { getLinkMessage } from '../../lib/netlink/link.ts';
import { close, netlinkReceive, netlinkSendAside, openEventFd, openNetlink } from '../../lib/sys/sys.ts';

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
