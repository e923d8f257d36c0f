// The configuration: defaults, every key, precedence, what is refused, and what a DEL passes over.
import t from 'tap';
import { CniError } from '../../../lib/cni/plugin.ts';
import { parseConfig } from '../../../lib/cni/protocol/config.ts';
import { lenient } from '../../../lib/cni/protocol/fields.ts';

const NET = { cniVersion: '1.0.0', name: 'net', type: 'tulle-cni' };
const parse = (more: object = {}, args: Record<string, string> = {}) =>
  parseConfig({ ...NET, ...more }, new Map(Object.entries(args)));

t.test('the defaults', async t => {
  t.same(parse(), {
    ...NET,
    mode: 'bridge',
    bridge: 'cni0',
    isDefaultGateway: false,
    forceAddress: false,
    hairpinMode: false,
    promiscMode: false,
    vlan: 0,
    vlanTrunk: [],
    preserveDefaultVlan: true,
    macspoofchk: false,
    enabledad: false,
    disableContainerInterface: false,
    portIsolation: false,
    wanted: { ips: [] },
    runtimeConfig: {},
  });
});

t.test('every key', async t => {
  const given = {
    mode: 'ptp',
    bridge: 'br1',
    isGateway: true,
    isDefaultGateway: true,
    forceAddress: true,
    ipMasq: false,
    ipMasqBackend: 'nftables',
    mtu: 1400,
    hairpinMode: true,
    promiscMode: true,
    vlan: 100,
    vlanTrunk: [{ minID: 1, maxID: 5 }, { id: 7 }],
    preserveDefaultVlan: false,
    macspoofchk: true,
    enabledad: true,
    disableContainerInterface: true,
    portIsolation: true,
    dns: { nameservers: ['10.0.0.1'], domain: 'x', search: ['y'], options: ['z'] },
    delegate: { bridge: 'br2', HairpinMode: true },
    subnetFile: '/run/flannel/subnet.env',
    dataDir: '/d',
  };
  t.same(parse(given), { ...NET, ...given, wanted: { ips: [] }, runtimeConfig: {} });
  t.equal(parse({ isDefaultGateway: true }).isGateway, true, 'a default gateway is a gateway');
  t.equal(parse({ isGateway: false }).isGateway, false);
  t.equal(parse({ mtu: 0 }).mtu, undefined);
});

t.test('address management', async t => {
  t.equal(parse().ipam, undefined);
  t.same(parse({ ipam: {} }).ipam, { type: '', ranges: [], routes: [] });
  t.same(
    parse({
      ipam: {
        type: 'tulle',
        subnet: '10.1.0.0/24',
        rangeStart: '10.1.0.5',
        rangeEnd: '10.1.0.9',
        gateway: '10.1.0.1',
        ranges: [[{ subnet: '10.2.0.0/24' }, { subnet: '10.3.0.0/24' }], [{ subnet: 'fd00::/64' }]],
        routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }, { dst: '10.0.0.0/8' }],
        dataDir: '/d',
        resolvConf: '/etc/resolv.conf',
      },
      runtimeConfig: { ipRanges: [[{ Subnet: '10.9.0.0/24' }]] },
    }).ipam,
    {
      type: 'tulle',
      ranges: [
        [{ subnet: '10.9.0.0/24' }],
        [{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.5', rangeEnd: '10.1.0.9', gateway: '10.1.0.1' }],
        [{ subnet: '10.2.0.0/24' }, { subnet: '10.3.0.0/24' }],
        [{ subnet: 'fd00::/64' }],
      ],
      routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }, { dst: '10.0.0.0/8' }],
      dataDir: '/d',
      resolvConf: '/etc/resolv.conf',
    },
    "host-local's order: asked for, the single one, the list",
  );
  const foreign = parse({ ipam: { type: 'dhcp', ranges: 'whatever', routes: 5, dataDir: [] } }).ipam;
  t.same(foreign, { type: 'dhcp', ranges: [], routes: [] }, "another plugin's keys are its own");
});

t.test('what the runtime wants: runtimeConfig, then args.cni, then CNI_ARGS', async t => {
  const args = { IP: '10.0.0.3', MAC: '02-00-00-00-00-03' };
  const cni = { ips: ['10.0.0.2/24'], mac: '0200.0000.0002' };
  const runtimeConfig = { IPs: ['10.0.0.1/24', 'fd00::1'], MAC: '02:00:00:00:00:0A' };
  t.same(parse({}, args).wanted, { ips: ['10.0.0.3'], mac: '02:00:00:00:00:03' });
  t.same(parse({ args: { cni } }, args).wanted, { ips: ['10.0.0.2/24'], mac: '02:00:00:00:00:02' });
  t.same(parse({ args: { cni }, runtimeConfig }, args).wanted, {
    ips: ['10.0.0.1/24', 'fd00::1'],
    mac: '02:00:00:00:00:0a',
  });
  t.same(parse({ args: { cni }, runtimeConfig: { ips: [], mac: '' } }, args).wanted, {
    ips: ['10.0.0.2/24'],
    mac: '02:00:00:00:00:02',
  });
  t.same(parse({ args: { cni: { ips: ['10.0.0.2'] } }, runtimeConfig: { mac: '02:00:00:00:00:01' } }, args).wanted, {
    ips: ['10.0.0.2'],
    mac: '02:00:00:00:00:01',
  });
  const mappings = [{ HostPort: 80, ContainerPort: 8080, Protocol: 'tcp', HostIP: '' }];
  t.same(parse({ runtimeConfig: { portMappings: mappings } }).runtimeConfig, { portMappings: mappings }, 'as sent');
});

t.test('what is refused, by key and value; a DEL passes over it', async t => {
  const rows: [object, number, string | RegExp][] = [
    [{ mtu: '1400' }, 6, 'mtu: "1400": it must be a whole number'],
    [{ mtu: 1400.5 }, 6, 'mtu: 1400.5: it must be a whole number'],
    [{ MTU: -1 }, 7, 'mtu: -1: it must be between 0 and 65535'],
    [{ vlan: 4095 }, 7, 'vlan: 4095: it must be between 0 and 4094'],
    [{ isGateway: 'true' }, 6, 'isGateway: "true": it must be true or false'],
    [{ bridge: 5 }, 6, 'bridge: 5: it must be a string'],
    [{ bridge: 'a/b' }, 7, /^bridge: "a\/b": it is not a name/],
    [{ bridge: '0123456789abcdef' }, 7, /^bridge: /],
    [{ mode: 'routed' }, 7, 'mode: "routed": it is not one of bridge, ptp'],
    [{ ipMasqBackend: 'pf' }, 7, /^ipMasqBackend: "pf": /],
    [{ vlanTrunk: [5] }, 6, 'vlanTrunk[0]: 5: it must be an object'],
    [{ ipam: 'host-local' }, 6, 'ipam: "host-local": it must be an object'],
    [{ ipam: { type: 5 } }, 6, 'ipam.type: 5: it must be a string'],
    [{ ipam: { subnet: '10.0.0.0' } }, 7, 'ipam.subnet: "10.0.0.0": it is not a subnet like 10.5.1.0/24'],
    [{ ipam: { ranges: [{}] } }, 6, 'ipam.ranges[0]: {}: it must be a list'],
    [{ ipam: { ranges: [[{}]] } }, 7, 'ipam.ranges[0][0].subnet: "": a range needs one'],
    [
      { ipam: { ranges: [[{ subnet: '10.0.0.0/24', gateway: '10.0.0.0/24' }]] } },
      7,
      'ipam.ranges[0][0].gateway: "10.0.0.0/24": it is not an IP address',
    ],
    [{ ipam: { routes: [{ dst: 'default' }] } }, 6, /^ipam.routes\[0\].dst: "default": /],
    [{ runtimeConfig: { ips: ['x'] } }, 7, 'runtimeConfig.ips: "x": it is not an IP address'],
    [{ runtimeConfig: { ips: '10.0.0.1' } }, 6, 'runtimeConfig.ips: "10.0.0.1": it must be a list'],
    [{ runtimeConfig: { mac: '02:00' } }, 7, 'runtimeConfig.mac: "02:00": it is not a MAC address'],
    [{ args: { cni: { ips: [5] } } }, 6, 'args.cni.ips[0]: 5: it must be a string'],
    [{ dns: { search: ['a', 1] } }, 6, 'dns.search[1]: 1: it must be a string'],
    [{ delegate: true }, 6, 'delegate: true: it must be an object'],
  ];
  for (const [more, code, message] of rows) {
    const found = ((): unknown => {
      try {
        return parse(more);
      } catch (error) {
        return error;
      }
    })();
    t.ok(found instanceof CniError, JSON.stringify(more));
    if (!(found instanceof CniError)) continue;
    t.equal(found.cniCode, code, found.message);
    t.match(found.message, message);
    t.equal(parseConfig({ ...NET, ...more }, new Map(), lenient).name, 'net');
  }
  t.throws(() => parseConfig({ ...NET, name: '' }, new Map(), lenient), { code: 'cni-7' });
  t.throws(() => parseConfig({ ...NET, cniVersion: 'x' }, new Map(), lenient), { code: 'cni-1' });
});
