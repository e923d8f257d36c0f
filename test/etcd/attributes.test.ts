import t from 'tap';
import { decodeAttributes, encodeAttributes } from '../../etcd/attributes.ts';

t.test("flannel's bytes", async t => {
  // Seen in a flannel cluster with the udp backend, and with vxlan.
  t.equal(encodeAttributes({ PublicIP: '10.88.0.1', PublicIPv6: null }), '{"PublicIP":"10.88.0.1","PublicIPv6":null}');
  const vxlan =
    '{"PublicIP":"10.88.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"2e:a1:00:00:00:01"}}';
  const decoded = decodeAttributes(vxlan);
  t.ok(decoded);
  if (decoded) t.equal(encodeAttributes(decoded), vxlan);
});

t.test("keys come in flannel's order, unknown ones after them, empty ones not at all", async t => {
  const text = encodeAttributes({
    Zone: 'a',
    BackendV6Data: { b: 2 },
    BackendData: { a: 1 },
    BackendType: 'tulle',
    PublicIPv6: 'fd00::1',
    PublicIP: '1.2.3.4',
  });
  t.equal(
    text,
    '{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::1","BackendType":"tulle","BackendData":{"a":1},"BackendV6Data":{"b":2},"Zone":"a"}',
  );
  t.equal(
    encodeAttributes({ PublicIP: '1.2.3.4', PublicIPv6: null, BackendType: '' }),
    '{"PublicIP":"1.2.3.4","PublicIPv6":null}',
  );
});

t.test("escapes as Go's encoder", async t => {
  const text = encodeAttributes({ PublicIP: '1.2.3.4', PublicIPv6: null, BackendData: { n: '<a&b>\u2028\u2029é"\n' } });
  t.match(text, '"n":"\\u003ca\\u0026b\\u003e\\u2028\\u2029é\\"\\n"');
  t.same(decodeAttributes(text)?.BackendData, { n: '<a&b>\u2028\u2029é"\n' });
});

t.test("reads what Go's decoder reads", async t => {
  t.same(decodeAttributes('{"publicip":"1.2.3.4","backendTYPE":"udp"}'), {
    PublicIP: '1.2.3.4',
    PublicIPv6: null,
    BackendType: 'udp',
  });
  t.equal(decodeAttributes('{}')?.PublicIP, '0.0.0.0', "Go's zero address");
});

t.test('refuses what is no lease value', async t => {
  for (const bad of [
    '',
    'null',
    '[]',
    '7',
    '{"PublicIP":',
    '{"PublicIP":7}',
    '{"PublicIP":"1.2.3"}',
    '{"PublicIP":"010.0.0.1"}',
    '{"PublicIP":"1.2.3.4","PublicIPv6":"x"}',
    '{"PublicIP":"1.2.3.4","BackendType":5}',
  ]) {
    t.equal(decodeAttributes(bad), undefined, bad);
  }
});
