import t from 'tap';
import * as sys from '../../lib/sys/sys.ts';
import { addAddress, linkIndex, namespace, noNamespaces, request } from './support.ts';

t.test('rtnetlink in a namespace', { skip: noNamespaces }, async t => {
  const path = namespace(t);
  t.equal(linkIndex(path, 'lo'), 1);
  t.throws(() => linkIndex(path, 'nosuch0'), { code: 'ENODEV' });
  t.throws(() => request(path, 18, 0, new Uint8Array(3)), { code: 'EINVAL' }, 'the kernel checks strictly');
});

t.test('timeouts, small buffers, events', { skip: noNamespaces }, async t => {
  const path = namespace(t);
  const handle = sys.openNetlink({ protocol: 0, namespace: path, groups: 0x10 }); // RTMGRP_IPV4_IFADDR
  const into = new Uint8Array(4096);
  t.equal(sys.netlinkReceive(handle, into, 0), 0);
  t.equal(sys.netlinkReceive(handle, into, 20), 0);
  addAddress(path, 1, '10.7.7.7', 32);
  const bytes = sys.netlinkReceive(handle, into, 5000);
  t.equal(new DataView(into.buffer).getUint32(0, true), bytes);
  t.equal(new DataView(into.buffer).getUint16(4, true), 20, 'RTM_NEWADDR');
  addAddress(path, 1, '10.7.7.8', 32);
  t.throws(() => sys.netlinkReceive(handle, new Uint8Array(8), 5000), { code: 'EMSGSIZE' });
  sys.close(handle);
  t.throws(() => sys.netlinkReceive(handle, into, 0), { code: 'EBADF' });
});

t.test('events that nobody reads are reported as lost', { skip: noNamespaces }, async t => {
  const path = namespace(t);
  const handle = sys.openNetlink({ protocol: 0, namespace: path, groups: 0x10 });
  const into = new Uint8Array(4096);
  let code = '';
  // The socket holds about 2 MB of events; each costs about 1 KB.
  for (let round = 0; round < 20 && code === ''; round++) {
    for (let i = 0; i < 250; i++) addAddress(path, 1, `10.8.${round}.${i}`, 32);
    try {
      if (round > 1) sys.netlinkReceive(handle, into, 0);
    } catch (error) {
      code = (error as sys.SysError).code;
    }
  }
  t.equal(code, 'ENOBUFS');
  t.ok(sys.netlinkReceive(handle, into, 0) > 0, 'what was there before is still there');
  sys.close(handle);
});

t.test('opening fails in words', async t => {
  t.throws(() => sys.openNetlink({ protocol: 0, namespace: '/nowhere/ns' }), {
    code: 'ENOENT',
    message: 'open /nowhere/ns: ENOENT (no such file or directory)',
  });
  t.throws(() => sys.openNetlink({ protocol: 99 }), { code: 'EPROTONOSUPPORT' });
});

/** RFC 792 echo request with its checksum. */
function echo(sequence: number): Uint8Array {
  const bytes = Uint8Array.of(8, 0, 0, 0, 0x12, 0x34, 0, sequence);
  const sum = 0x0800 + 0x1234 + sequence;
  new DataView(bytes.buffer).setUint16(2, ~sum & 0xffff);
  return bytes;
}

t.test('raw sockets', { skip: noNamespaces }, async t => {
  const path = namespace(t);
  const into = new Uint8Array(256);

  const four = sys.openRaw({ family: 4, protocol: 1, namespace: path });
  t.equal(sys.rawReceive(four, into, 0), undefined);
  t.equal(sys.rawReceive(four, into, 20), undefined);
  t.equal(sys.rawSend(four, echo(7), '127.0.0.1'), 8);
  t.same(sys.rawReceive(four, into, 5000), { bytes: 28, address: '127.0.0.1' });
  t.equal(into[20], 8, 'our request, after 20 bytes of IP header');
  t.same(sys.rawReceive(four, into, 5000), { bytes: 28, address: '127.0.0.1' });
  t.equal(into[20], 0, 'the reply');
  t.throws(() => sys.rawSend(four, echo(1), 'example'), { code: 'EINVAL' });
  t.throws(() => sys.rawSend(four, echo(1), '10.1.1.1'), { code: 'ENETUNREACH' });

  // With protocol 255 the header is ours: total length, id and checksum are filled in where they are 0.
  const own = sys.openRaw({ family: 4, protocol: 255, namespace: path });
  const packet = Uint8Array.of(0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 127, 0, 0, 9, 127, 0, 0, 1, ...echo(9));
  t.equal(sys.rawSend(own, packet, '127.0.0.1'), 28);
  t.same(sys.rawReceive(four, into, 5000), { bytes: 28, address: '127.0.0.9' });

  const six = sys.openRaw({ family: 6, protocol: 58, namespace: path });
  t.equal(sys.rawSend(six, Uint8Array.of(128, 0, 0, 0, 0, 1, 0, 1), '::1'), 8);
  t.same(sys.rawReceive(six, into, 5000), { bytes: 8, address: '::1' });
  t.equal(into[0], 128, 'no IP header over IPv6');
  for (const handle of [four, own, six]) sys.close(handle);
  t.throws(() => sys.openRaw({ family: 5 as 4, protocol: 1 }), { code: 'EINVAL' });
});
