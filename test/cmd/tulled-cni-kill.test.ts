// tulled and tulle-cni with the real rules, killed at any moment: after a start and a GC nothing is left.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { hostLinkName } from '../../lib/cni/names.ts';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';
import { spawnTulled, type Tulled } from '../daemon/process.ts';
import { openRuleTools } from '../host/rule-tools.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { below, prng, testSeed } from '../support/prng.ts';
import { client, invoke } from './tulle-cni-support.ts';

const noNamespaces = whyNot();
const tools = noNamespaces === false ? openRuleTools() : noNamespaces;
const skip = typeof tools === 'string' ? tools : false;
t.teardown(() => {
  if (typeof tools !== 'string') tools.remove();
});

const ROUNDS = 8;
const PODS = ['pod0', 'pod1', 'pod2', 'pod3', 'pod4'];
/** Five addresses and the gateway, in each family: one that leaks is missed at once. */
const RANGES = [[{ subnet: '10.9.0.0/29' }], [{ subnet: 'fd00:9::/125' }]];

t.test('SIGKILL of tulled and of tulle-cni at any moment, with nftables, then a start and GC', { skip }, async t => {
  if (typeof tools === 'string') return;
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const random = prng(seed);
  const folder = mkdtempSync('/tmp/tulle-test-kill-');
  const place = (name: string): string => join(folder, name);
  const made = ['host', ...PODS].map(place);
  for (const path of made) makeNamespace(path);
  let tulled: Tulled | undefined;
  t.teardown(async () => {
    await tulled?.end('SIGKILL');
    for (const path of made) removeNamespace(path);
    rmSync(folder, { recursive: true, force: true });
  });
  mkdirSync(place('data'));
  const socket = place('cni.sock');
  const config = {
    cniVersion: '1.1.0',
    name: 'net1',
    type: 'tulle-cni',
    socket,
    isDefaultGateway: true,
    ipMasq: true,
    ipam: { ranges: RANGES },
  };
  const start = async (): Promise<Tulled> => {
    const args = ['--cni-only', `--cni-socket=${socket}`, `--cni-data-dir=${place('data')}`];
    const started = withNamespace(place('host'), () => spawnTulled(args, { PATH: tools.path('nft').join(':') }));
    tulled = started;
    await started.saw(/ ready/);
    return started;
  };
  const environment = (command: string, pod: string): Record<string, string> => ({
    CNI_COMMAND: command,
    CNI_CONTAINERID: pod,
    CNI_NETNS: pod === '' ? '' : place(pod),
    CNI_IFNAME: 'eth0',
    CNI_PATH: folder,
    TULLE_CNI_TIMEOUT_MS: '20000',
  });
  const [program, ...programArgs] = client().command;
  /** A client that may be killed; resolves when it has ended, however. */
  const run = (command: string, pod: string): { child: ChildProcess; ended: Promise<void> } => {
    const child = withNamespace(place('host'), () =>
      spawn(program, programArgs, { env: environment(command, pod), stdio: ['pipe', 'ignore', 'ignore'] }),
    );
    child.stdin!.on('error', () => {});
    child.stdin!.end(JSON.stringify(config));
    return { child, ended: new Promise(resolve => child.on('close', () => resolve())) };
  };
  const call = (command: string, pod: string, more: object = {}) =>
    withNamespace(place('host'), () => ({
      outcome: invoke(client(), environment(command, pod), JSON.stringify({ ...config, ...more })),
    })).outcome;

  const linkOf = (pod: string): string => hostLinkName({ network: 'net1', containerId: pod, ifname: 'eth0' });
  const hostLinks = (): string[] =>
    withRtnetlink(place('host'), netlink => netlink.links().map(link => link.name))
      .filter(name => name.startsWith('veth'))
      .sort();
  const podsWithLinks = (): string[] =>
    PODS.filter(pod => withRtnetlink(place(pod), netlink => netlink.link('eth0')) !== undefined);
  /** Addresses that are masqueraded, of both families. */
  const rules = (): string[] => {
    const text = withNamespace(place('host'), () => execFileSync(tools.nft, ['list', 'ruleset'], { encoding: 'utf8' }));
    return [...text.matchAll(/([0-9a-f.:]+) comment "net1\/(pod\d)\/eth0"/g)]
      .map(([, ip, pod]) => `${pod} ${ip}`)
      .sort();
  };
  const addressesOf = (pod: string): string[] =>
    withRtnetlink(place(pod), netlink => netlink.addresses({ link: 'eth0' }))
      .filter(({ scope }) => scope === 'global')
      .map(({ address }) => `${pod} ${address}`);

  let leftovers = 0;
  let finished = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const daemon = await start();
    const running = new Set<ChildProcess>();
    let isOver = false;
    const live = async (pod: string): Promise<void> => {
      while (!isOver) {
        const { child, ended } = run(below(random, 3) > 0 ? 'ADD' : 'DEL', pod);
        running.add(child);
        if (below(random, 3) === 0) setTimeout(() => child.kill('SIGKILL'), below(random, 8));
        await ended;
        running.delete(child);
        finished++;
      }
    };
    const lives = PODS.map(live);
    await new Promise(resolve => setTimeout(resolve, 30 + below(random, 120)));
    // Every other time the daemon alone dies, and clients find nobody.
    daemon.child.kill('SIGKILL');
    isOver = true;
    if (round % 2 === 0) for (const child of running) child.kill('SIGKILL');
    await Promise.all([daemon.ended, ...lives]);
    leftovers += hostLinks().length + rules().length;

    // A daemon is started again: what was half made goes, with its rule; what is there is whole.
    const next = await start();
    const standing = podsWithLinks();
    t.same(hostLinks(), standing.map(linkOf).sort(), `round ${round}: pairs are whole`);
    t.same(rules(), standing.flatMap(addressesOf).sort(), 'a rule for each address of a pod, and no other');
    const valid = standing.slice(0, 1);
    const attachments = valid.map(pod => ({ containerID: pod, ifname: 'eth0' }));
    t.same((await call('GC', '', { 'cni.dev/valid-attachments': attachments })).stdout, '');
    t.same(podsWithLinks(), valid, 'GC leaves what is in use');
    t.same(hostLinks(), valid.map(linkOf), 'no link more');
    t.same(rules(), valid.flatMap(addressesOf).sort(), 'no rule more');
    // All addresses but those of what stands can be had.
    const others = PODS.filter(pod => !valid.includes(pod));
    for (const pod of others) t.equal((await call('ADD', pod)).code, 0, `an address for ${pod}`);
    t.match(
      (await call('STATUS', '')).json,
      { code: 50, msg: /no IP addresses available/ },
      'exactly as many as there are',
    );
    for (const pod of PODS) await call('DEL', pod);
    t.same([hostLinks(), podsWithLinks(), rules()], [[], [], []]);
    t.equal((await next.end('SIGTERM')).code, 0, next.stderr());
  }
  t.ok(finished > 5 * ROUNDS, `${finished} calls`);
  t.ok(leftovers > 0, `${leftovers} links and rules left by the kills`);
});
