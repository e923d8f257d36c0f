// From facts to findings: each finding provoked, a well machine silent, the documentation compared.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { diagnoseMachine } from '../../../lib/observe/doctor/diagnose.ts';
import type { MachineFacts, Trial } from '../../../lib/observe/doctor/facts.ts';
import { CHECKS, FINDINGS, finding } from '../../../lib/observe/doctor/finding.ts';
import { diagnosePeers, type PeerLook } from '../../../lib/observe/doctor/peers.ts';
import { statusDocument } from '../../../lib/observe/status.ts';
import { statusInput } from '../status-input.ts';

const well: Trial = { ok: true };
const refused = (code: string): Trial => ({ ok: false, code, message: `${code} it is` });
const status = statusDocument(statusInput());

const facts: MachineFacts = {
  nodeVersion: '20.19.0',
  isRoot: true,
  namespace: well,
  tun: well,
  offloads: { checksum: true, tso: true, uso: true },
  udpGro: well,
  udpTrain: well,
  veth: well,
  bridge: well,
  bridgeNetfilter: true,
  nftables: true,
  iptables: true,
  userNamespacesOff: undefined,
  ipForward: true,
  rpFilter: 2,
  underlay: { name: 'eth0', mtu: 1500, up: true, address: '10.88.0.1' },
  dataPort: 8285,
  portHolders: [],
  clock: { nowMs: Date.UTC(2026, 6, 1), jumpMs: 0.2, synchronised: true },
  foreignLinks: [],
  conflicts: [],
};

const seen = new Set<string>();
const codes = (findings: readonly { code: string }[]): string[] => {
  for (const { code } of findings) seen.add(code);
  return findings.map(({ code }) => code);
};

t.test('a machine that is well', async t => {
  t.same(diagnoseMachine(facts, status), []);
});

t.test('each finding of the machine alone', async t => {
  const cases: [code: string, changes: Partial<MachineFacts>, words: RegExp][] = [
    ['node-too-old', { nodeVersion: '18.1.0' }, /18\.1\.0/],
    ['not-root', { isRoot: false }, /not root/],
    ['no-namespaces', { namespace: refused('EPERM') }, /EPERM it is/],
    ['user-namespaces-off', { userNamespacesOff: 'x is 0' }, /x is 0/],
    ['tun-missing', { tun: refused('ENOENT') }, /ENOENT/],
    ['tun-denied', { tun: refused('EPERM') }, /EPERM/],
    ['offload-missing', { offloads: { checksum: true, tso: true, uso: false } }, /lacks uso$/],
    ['udp-trains-missing', { udpTrain: refused('EINVAL') }, /UDP_SEGMENT.*EINVAL/],
    ['udp-gro-missing', { udpGro: refused('ENOPROTOOPT') }, /UDP_GRO/],
    ['veth-missing', { veth: refused('EOPNOTSUPP') }, /veth/],
    ['bridge-missing', { bridge: refused('EOPNOTSUPP') }, /bridge/],
    ['bridge-netfilter-missing', { bridgeNetfilter: undefined }, /br_netfilter is not loaded/],
    ['bridge-netfilter-off', { bridgeNetfilter: false }, /bridge-nf-call-iptables is 0/],
    ['no-rule-tool', { nftables: false, iptables: false }, /neither/],
    ['nftables-missing', { nftables: false }, /nft/],
    ['forwarding-lost', { ipForward: false }, /although tulled runs/],
    ['rp-filter-strict', { rpFilter: 1 }, /eth0 is strict/],
    ['no-underlay', { underlay: { error: 'no default route' } }, /no default route/],
    ['underlay-down', { underlay: { name: 'eth0', mtu: 1500, up: false, address: '' } }, /eth0 is down/],
    ['port-taken', { portHolders: [{ address: '0.0.0.0', port: 8285, pid: 7, name: 'flanneld' }] }, /flanneld \(7\)/],
    ['clock-wrong', { clock: { nowMs: 0, jumpMs: 0, synchronised: true } }, /1970-01-01/],
    ['clock-jumps', { clock: { ...facts.clock, jumpMs: -900 } }, /-900 ms/],
    ['clock-unsynchronised', { clock: { ...facts.clock, synchronised: false } }, /unsynchronised/],
    ['overlay-remains', { foreignLinks: [{ name: 'flannel.1', of: 'flannel' }] }, /flannel\.1, of flannel/],
    ['route-conflict', { conflicts: ['10.5.0.0/24 dev eth7'] }, /10\.5\.0\.0\/24 dev eth7/],
  ];
  for (const [code, changes, words] of cases) {
    const found = diagnoseMachine({ ...facts, ...changes }, status);
    t.same(codes(found), [code]);
    t.match(found[0]?.text, words, code);
    t.notMatch(found[0]?.text ?? '\n', /\n/, 'one line');
  }
  t.same(codes(diagnoseMachine({ ...facts, ipForward: false }, undefined)), ['forwarding-off', 'no-daemon']);
});

t.test('a user who may not ask tulled does not accuse it', async t => {
  const holder = { address: '10.88.0.1', port: 8285, pid: undefined, name: undefined };
  const user = { ...facts, isRoot: false, portHolders: [holder] };
  const found = diagnoseMachine(user, undefined, 'no permission to open it');
  t.same(codes(found), ['not-root', 'port-held', 'daemon-denied']);
  t.notOk(found.some(({ severity }) => severity === 'error'));
  t.same(
    codes(diagnoseMachine({ ...facts, portHolders: [holder] }, status)),
    ['port-taken'],
    'root sees who it is not',
  );
  const other = { ...holder, pid: 7, name: 'flanneld' };
  t.same(codes(diagnoseMachine({ ...user, portHolders: [other] }, status)), ['not-root', 'port-taken']);
});

t.test('arithmetic of the MTU', async t => {
  const at = (mtu: number, overlay = 1460): string[] => {
    const input = statusInput();
    const document = statusDocument({ ...input, overlay: input.overlay && { ...input.overlay, mtu: overlay } });
    const underlay = { name: 'eth0', mtu, up: true, address: '' };
    return codes(diagnoseMachine({ ...facts, underlay }, document));
  };
  t.same(at(9000), []);
  t.same(at(1499, 1459), ['mtu-below-1500']);
  t.same(at(616, 576), ['mtu-below-1500']);
  t.same(at(615, 575), ['mtu-too-small']);
  t.same(at(1500, 1472), [], "flannel's format has 28 bytes around");
  t.same(at(1500, 1473), ['overlay-mtu-too-big']);
});

t.test('a daemon that is not well says why', async t => {
  const input = statusInput();
  const sick = statusDocument({
    ...input,
    registry: input.registry && { ...input.registry, health: { healthy: false, reason: 'no answer', forMs: 4000 } },
  });
  const found = diagnoseMachine(facts, sick);
  t.same(codes(found), ['daemon-unwell']);
  t.match(found[0]?.text, /registry is not well for 4 s: no answer/);
});

t.test('the way to the peers', async t => {
  const peer = { subnet: '10.5.2.0/24', node: 'node2', endpoint: '10.88.0.2:8285', format: 'tulle' };
  const measuredPeer = { rttMs: 1, lossPct: 0, lastHeardMs: 10, pathMtu: 1500, silent: false };
  const look = (more: Partial<PeerLook>, measured: Partial<typeof measuredPeer> = {}): PeerLook => ({
    peer: { ...peer, ...measuredPeer, ...measured },
    echoed: true,
    knock: undefined,
    learntMtu: undefined,
    ...more,
  });
  const withDaemon = (...looks: PeerLook[]): string[] => codes(diagnosePeers(looks, 1500, true));
  t.same(withDaemon(look({})), []);
  t.same(withDaemon(look({ echoed: false })), [], 'its probes are answered: echo is a matter of taste');
  t.same(withDaemon(look({}, { silent: true })), ['peer-silent']);
  t.same(withDaemon(look({ echoed: undefined }, { silent: true })), ['peer-silent']);
  t.same(withDaemon(look({ echoed: false }, { silent: true })), ['peer-unreachable']);
  t.same(withDaemon(look({}, { lossPct: 5 }), look({}, { pathMtu: 1400 })), ['peer-lossy', 'path-narrow']);

  const without = (more: Partial<PeerLook>): string[] =>
    codes(
      diagnosePeers([{ peer, echoed: true, learntMtu: undefined, knock: { kind: 'quiet' }, ...more }], 1500, false),
    );
  t.same(without({}), ['peer-unprovable']);
  t.same(without({ echoed: false }), ['no-echo', 'peer-unprovable']);
  t.same(without({ learntMtu: 1300 }), ['path-narrow', 'peer-unprovable']);
  t.same(without({ knock: { kind: 'refused' } }), ['peer-port-closed']);
  t.same(without({ knock: { kind: 'failed', message: 'EHOSTUNREACH' } }), ['peer-unreachable']);
});

t.test('every code was provoked here, but for those that say what was not looked at', async t => {
  for (const code of ['no-peers', 'registry-unreachable', 'echo-untried']) seen.add(code); // test/cmd/tulle-doctor.test.ts
  t.same([...seen].sort(), Object.keys(FINDINGS).sort());
});

t.test('docs/doctor.md has a section for each, with its severity and its advice, and no other', async t => {
  const findRoot = (from: string): string => (existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from)));
  const text = readFileSync(join(findRoot(dirname(fileURLToPath(import.meta.url))), 'docs/doctor.md'), 'utf8');
  const sections = text.split(/^### /m).slice(1);
  t.same(sections.map(section => section.split('\n')[0]).sort(), Object.keys(FINDINGS).sort());
  for (const section of sections) {
    const [code] = section.split('\n');
    const { severity, advice } = FINDINGS[code as keyof typeof FINDINGS];
    const [, first, toDo] = section.split('\n\n').map(part => part.replaceAll('\n', ' ').trim());
    t.match(first.toLowerCase(), new RegExp(`^${severity}\\. .`), code);
    t.equal(toDo, `To do: ${advice}.`, code);
  }
  for (const { check } of Object.values(FINDINGS)) t.ok(check in CHECKS);
  t.match(finding('no-daemon', 'x'), { code: 'no-daemon', severity: 'note', check: 'daemon', text: 'x' });
});
