import t from 'tap';
import { BAD_TOTAL_LENGTH, OK, TOO_SHORT } from '../../lib/wire/reason.ts';
import * as udp from '../../lib/wire/udp.ts';
import { bordersIntact, CAPTURED, fromHex, poisoned, spoil } from './packets.ts';

t.test('what is emitted is read again, and nothing else is touched', async t => {
  const place = poisoned(8);
  const { bytes, offset } = place;
  t.equal(udp.emitUdp(bytes, offset, 65_535, 53, 1480), 8);
  t.equal(udp.udpSourcePort(bytes, offset), 65_535);
  t.equal(udp.udpDestinationPort(bytes, offset), 53);
  t.equal(udp.udpLength(bytes, offset), 1480);
  t.equal(udp.udpChecksum(bytes, offset), 0);
  udp.setUdpLength(bytes, offset, 9);
  udp.setUdpChecksum(bytes, offset, 0xfedc);
  t.equal(udp.udpLength(bytes, offset), 9);
  t.equal(udp.udpChecksum(bytes, offset), 0xfedc);
  t.ok(bordersIntact(place));
  t.equal(udp.printUdp(bytes, offset), '65535 > 53 UDP length 1');
});

t.test('one spoiled field, one reason', async t => {
  const datagram = fromHex(CAPTURED.udp4).subarray(20);
  t.equal(udp.checkUdp(datagram, 0, 13), OK);
  t.equal(udp.checkUdp(datagram, 0, 20), OK, 'padding behind the datagram');
  t.equal(udp.checkUdp(datagram, 0, 12), BAD_TOTAL_LENGTH);
  t.equal(udp.checkUdp(datagram, 0, 7), TOO_SHORT);
  t.equal(
    udp.checkUdp(
      spoil(datagram, bytes => udp.setUdpLength(bytes, 0, 7)),
      0,
      13,
    ),
    BAD_TOTAL_LENGTH,
  );
  t.equal(
    udp.checkUdp(
      spoil(datagram, bytes => udp.setUdpLength(bytes, 0, 0)),
      0,
      13,
    ),
    BAD_TOTAL_LENGTH,
    'a jumbogram',
  );
  t.equal(
    udp.checkUdp(
      spoil(datagram, bytes => udp.setUdpLength(bytes, 0, 8)),
      0,
      13,
    ),
    OK,
  );
});
