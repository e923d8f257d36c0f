// 300 pods at once, with nothing in between that is not real: tulle-cni, the socket, tulled, netlink, nftables.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';
import { spawnTulled, type Tulled } from '../daemon/process.ts';
import { openRuleTools } from '../host/rule-tools.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { client, invoke, type Outcome } from './tulle-cni-support.ts';

const noNamespaces = whyNot();
const tools = noNamespaces === false ? openRuleTools() : noNamespaces;
const skip = typeof tools === 'string' ? tools : false;
t.teardown(() => {
  if (typeof tools !== 'string') tools.remove();
});

const PODS = Array.from({ length: 300 }, (_, i) => `pod${i}`);

t.test('300 ADDs at once, then 300 DELs', { skip }, async t => {
  if (typeof tools === 'string') return;
  const { nft } = tools;
  const folder = mkdtempSync('/tmp/tulle-test-crowd-');
  const place = (name: string): string => join(folder, name);
  const made = ['host', ...PODS].map(place);
  let tulled: Tulled | undefined;
  t.teardown(async () => {
    await tulled?.end('SIGKILL');
    for (const path of made) removeNamespace(path);
    rmSync(folder, { recursive: true, force: true });
  });
  for (const path of made) makeNamespace(path);
  mkdirSync(place('data'));
  const socket = place('cni.sock');
  const args = ['--cni-only', '--control-socket=none', `--cni-socket=${socket}`, `--cni-data-dir=${place('data')}`];
  tulled = withNamespace(place('host'), () => spawnTulled(args, { PATH: tools.path('nft').join(':') }));
  await tulled.saw(/ ready/);
  const config = JSON.stringify({
    cniVersion: '1.0.0',
    name: 'net1',
    type: 'tulle-cni',
    socket,
    isDefaultGateway: true,
    ipMasq: true,
    ipam: { subnet: '10.9.0.0/22' },
  });
  const variables = (command: string, pod: string): Record<string, string> => ({
    CNI_COMMAND: command,
    CNI_CONTAINERID: pod,
    CNI_NETNS: place(pod),
    CNI_IFNAME: 'eth0',
    CNI_PATH: folder,
  });
  const program = client();
  const all = (command: string): Promise<Outcome[]> => {
    // The programs are started within the namespace; their ends come later.
    const started = withNamespace(place('host'), () =>
      PODS.map(pod => invoke(program, variables(command, pod), config)),
    );
    return Promise.all(started);
  };
  const failed = (outcomes: readonly Outcome[]): string[] =>
    outcomes.filter(({ code }) => code !== 0).map(({ stdout, stderr }) => `${stdout}${stderr}`);
  const hostLinks = (): string[] =>
    withRtnetlink(place('host'), netlink => netlink.links().map(({ name }) => name)).filter(name => /^veth/.test(name));
  const masqueraded = (): string[] => {
    const text = withNamespace(place('host'), () => execFileSync(nft, ['list', 'ruleset'], { encoding: 'utf8' }));
    return [...text.matchAll(/([0-9.]+) comment "net1\/(pod\d+)\/eth0"/g)].map(([, ip, pod]) => `${pod} ${ip}`).sort();
  };

  const added = await all('ADD');
  t.same(failed(added), []);
  const told = added.map(({ json }, i) => {
    const [{ address }] = json['ips'] as { address: string }[];
    return `${PODS[i]} ${address.split('/')[0]}`;
  });
  t.equal(new Set(told.map(line => line.split(' ')[1])).size, 300, 'no address twice');
  const there = PODS.map(pod => {
    const [ip] = withRtnetlink(place(pod), netlink => netlink.addresses({ link: 'eth0', family: 4 }));
    return `${pod} ${ip?.address}`;
  });
  t.same(there, told, 'each has what its result says');
  t.same(masqueraded(), [...told].sort(), 'and is masqueraded');
  t.equal(hostLinks().length, 300);

  t.same(failed(await all('DEL')), []);
  t.same(hostLinks(), []);
  t.same(masqueraded(), []);
  t.same(
    PODS.filter(pod => withRtnetlink(place(pod), netlink => netlink.link('eth0')) !== undefined),
    [],
  );
  t.equal((await tulled.end('SIGTERM')).code, 0, tulled.stderr());
});
