import t from 'tap';
import { configPlace, printNetwork, readNetwork } from '../../lib/daemon/network.ts';

const read = (conf: unknown) => readNetwork(typeof conf === 'string' ? conf : JSON.stringify(conf), 'the place');

t.test('the backend and its port', async t => {
  const flannel = read({ Network: '10.5.0.0/16' });
  t.same(flannel.backend, { type: 'udp', port: 8285 }, "no Backend means udp, as in flannel's code");
  const tulle = read({ network: '10.5.0.0/16', Backend: { Type: 'tulle', port: 9000 } });
  t.same(tulle.backend, { type: 'tulle', port: 9000 }, 'keys in any case');
  t.equal(printNetwork(tulle), '10.5.0.0/16');
  const both = read({ Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00::/48', Backend: { Type: 'tulle' } });
  t.equal(printNetwork(both), '10.5.0.0/16 fd00::/48');
});

t.test('bad input is one line that begins with the place', async t => {
  const table: [unknown, RegExp][] = [
    ['{"Network": "10.5.0.0/16"', /not JSON/],
    ['', /not JSON/],
    ['[]', /not a JSON object/],
    [{}, /Network is missing/],
    [{ Network: '10.5.0.0/33' }, /Network "10.5.0.0\/33" is not a network/],
    [{ Network: '10.5.0.0/29' }, /too small/],
    [{ Network: '10.5.0.0/16', SubnetLen: 17 }, /SubnetLen 17 does not fit/],
    [{ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } }, /Backend.Type "vxlan" is not supported: use "tulle"/],
    [{ Network: '10.5.0.0/16', Backend: { Type: 'udp', Port: 0 } }, /Backend.Port 0 .* 1 to 65535/],
    [{ Network: '10.5.0.0/16', Backend: { Type: 'udp', Port: '8285' } }, /Backend.Port "8285" .* 1 to 65535/],
    [{ Network: '10.0.0.0/8', SubnetLen: 30 }, /is the most: set SubnetLen to 28 or less/],
    [{ Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00::/48' }, /udp carries IPv4 only.*"tulle"/],
    [
      { Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00::/40', Backend: { Type: 'tulle' } },
      /IPv6SubnetLen 64 cuts .* set IPv6SubnetLen to 60 or less/,
    ],
    [{ Network: '10.5.0.0/16', Backend: { Type: 'udp', Underlay: 'ipv6' } }, /"ipv6" needs Backend.Type "tulle"/],
    [{ EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd00::/48' }, /EnableIPv4 is false/],
  ];
  for (const [conf, message] of table) {
    t.throws(() => read(conf), { code: 'bad-config', message: /^the place: [^\n]*$/ }, JSON.stringify(conf));
    t.throws(() => read(conf), { message });
  }
});

t.test('the place of the net-conf', async t => {
  t.equal(configPlace({ kind: 'file', directory: '/x' }), '/x/config');
  t.equal(configPlace({ kind: 'etcd', endpoints: [], prefix: '/a/b' }), 'the etcd key /a/b/config');
});
