import t from 'tap';
import { parsePing } from '../../../bench/load/ping.ts';

t.test('the round trips of ping', async t => {
  const text = `PING 10.42.2.2 (10.42.2.2) 56(84) bytes of data.
64 bytes from 10.42.2.2: icmp_seq=1 ttl=62 time=0.123 ms
64 bytes from 10.42.2.2: icmp_seq=2 ttl=62 time=12.4 ms
64 bytes from 10.42.2.2: icmp_seq=2 ttl=62 time=13.0 ms (DUP!)
From 10.42.1.1 icmp_seq=3 Destination Net Unreachable
64 bytes from 10.42.2.2: icmp_seq=4 ttl=62 time=100 ms

--- 10.42.2.2 ping statistics ---
4 packets transmitted, 3 received, +1 duplicates, 25% packet loss, time 6ms
rtt min/avg/max/mdev = 0.123/37.507/100.000/1.000 ms
`;
  t.same(parsePing(text), [0.123, 12.4, 100]);
  t.same(parsePing(''), []);
});
