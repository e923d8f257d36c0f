/** Lessons about trouble: a black hole, a duplicate lease, forged datagrams, a node that lost its registry. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { withRtnetlink } from '../netlink/netlink.ts';
import { TulleError } from '../util/errors.ts';
import { PcapngReader } from '../wire/pcapng-read.ts';
import { leaseDirectory, nodeDirectory } from './cluster.ts';
import { listFaults } from './fault.ts';
import { readLeases } from './leases.ts';
import type { Goal, Lesson, Scene } from './lesson.ts';
import { measureTcp } from './measure.ts';
import { ping } from './ping.ts';
import { placeOf, statusOf } from './places.ts';
import { UNDERLAY } from './plan.ts';
import { restartDaemon } from './restart.ts';
import { type LabState, namespaceFile } from './state.ts';

const CHECK_MS = 8000;

/** A short stream from pod1 to pod2, now. */
async function flows({ state }: Scene): Promise<true | string> {
  const [from, to] = [placeOf(state, 'pod1'), placeOf(state, 'pod2')];
  try {
    await measureTcp(from, to, { bytes: 200_000, seed: 1 }, CHECK_MS);
    return true;
  } catch (error) {
    if (!(error instanceof TulleError)) throw error;
    return error.message;
  }
}

/** An echo from pod1 to pod2, now. */
async function reaches({ state }: Scene): Promise<boolean> {
  const [from, to] = [placeOf(state, 'pod1'), placeOf(state, 'pod2')];
  const { received } = await ping(from.namespaceFile, to.address, { count: 3, intervalMs: 50, timeoutMs: 1000 });
  return received > 0;
}

const eachNode = async (state: LabState, flags: readonly string[]): Promise<void> => {
  for (const node of ['node1', 'node2']) await restartDaemon(state, node, flags);
};

const hole = async ({ state }: Scene): Promise<boolean> =>
  (await listFaults(state)).some(fault => fault.kind === 'mtu' && fault.mode === 'silent' && fault.state === 'on');

/** What an honest node believes of its link when the hole is 1400 bytes wide. */
const HOLE_BYTES = 1400;

export const BLACK_HOLE: Lesson = {
  number: 3,
  title: 'The MTU black hole',
  page: '03-the-mtu-black-hole.md',
  why: 'Small packets arrive, long ones vanish, and nobody says a word: the most baffling fault of all overlays.',
  up: [],
  // tulle looks for the width of each path by itself, and would be done before the learner has begun.
  setUp: state => eachNode(state, ['--probe-interval=0']),
  goals: [
    {
      task: `dig a black hole between node1 and node2: no packet of more than ${HOLE_BYTES} bytes passes`,
      hint: `tulle lab fault add mtu node1-node2 --bytes ${HOLE_BYTES} --name lesson-3`,
      reached: async scene => (await hole(scene)) || 'there is no silent "mtu" fault in this lab',
    },
    {
      task: 'see that a short echo comes back and a long one does not',
      hint: 'tulle lab ping pod1 pod2 --name lesson-3, and the same with --bytes 1450',
      reached: ({ notes }) => {
        const pings = notes.flatMap(note => (note.tool === 'ping' && note.from === 'pod1' ? [note] : []));
        if (!pings.some(note => note.bytes > HOLE_BYTES && note.received === 0)) return 'no long echo was lost yet';
        return pings.some(note => note.bytes < 1000 && note.received > 0) || 'no short echo came back yet';
      },
    },
    {
      task: 'trace a packet of 1450 bytes, and see between which two places it ends',
      hint: 'tulle lab trace pod1 pod2 --size 1450 --name lesson-3',
      reached: ({ notes }) =>
        notes.some(note => note.tool === 'trace' && note.size > HOLE_BYTES && note.reason === 'lost') ||
        'no long packet was traced into the hole yet',
    },
    {
      task: 'see a TCP stream hang',
      hint: 'tulle lab tcp pod1 pod2 --name lesson-3',
      reached: ({ notes }) =>
        notes.some(note => note.tool === 'tcp' && note.gbps === null) || 'no stream has been seen to hang',
    },
    {
      task: 'mend it with the hole still there: tell both nodes the true MTU of their links',
      hint: `tulle lab fault add mtu node1 --bytes ${HOLE_BYTES} --mode link --name lesson-3, and the same for node2`,
      lasting: true,
      reached: async scene => {
        if (!(await hole(scene))) return 'the hole is gone: dig it again, filling it up is not the way here';
        for (const node of ['node1', 'node2']) {
          const mtu = withRtnetlink(namespaceFile(scene.state, node), netlink => netlink.link('eth0')?.mtu ?? 0);
          if (mtu > HOLE_BYTES) return `${node} still believes that its link takes ${mtu} bytes`;
        }
        return flows(scene);
      },
    },
  ],
};

const NODE2_ADDRESS = '10.88.0.2';

export const DUPLICATE_LEASE: Lesson = {
  number: 4,
  title: 'A duplicate lease',
  page: '04-a-duplicate-lease.md',
  why: 'Two nodes that believe they are one: who gets the packets? See who is refused, and why nobody shares.',
  up: [],
  goals: [
    {
      task: "give node2's lease to somebody else, by hand, and see that node2 does not start",
      hint: 'stop node2, put "imposter" in the place of "node2" in the file of its lease, then restart node2',
      reached: ({ state }) => {
        const log = readFileSync(join(nodeDirectory(state, 'node2'), 'tulled.log'), 'utf8');
        const refused = new RegExp(`${NODE2_ADDRESS} is also the PublicIP of the lease \\S+ of node imposter`);
        return refused.test(log) || "node2's log tells of no refusal because of an imposter";
      },
    },
    {
      task: "whose lease stood in node2's way? Answer with the node id",
      hint: "read the end of node2's log: tail -n 1 DIRECTORY/node2/tulled.log. tulle lesson 4 --answer NAME",
      reached: ({ answers }) =>
        answers.includes('imposter') || (answers.length === 0 ? 'no answer yet' : `not ${answers.at(-1)}`),
    },
    {
      task: "start a clone of node1 on the switch: node1's id, another address. It gets a subnet of its own",
      hint: 'run tulled in the namespace "switch" with --node-id=node1 and -iface=br0: the page has the whole line',
      reached: async ({ state }) =>
        (await readLeases(state, state.record.registry)).some(({ publicIp }) => publicIp === UNDERLAY.switchAddress) ||
        `no lease names ${UNDERLAY.switchAddress}, the address of the switch`,
    },
    {
      task: 'mend it: one lease for each address, and pod1 reaches pod2',
      hint: 'put "node2" back into the file of its lease, then tulle lab restart node2 --name lesson-4',
      lasting: true,
      reached: async scene => {
        const leases = await readLeases(scene.state, scene.state.record.registry);
        const claims = leases.filter(lease => lease.publicIp === NODE2_ADDRESS).length;
        if (claims !== 1) return `${claims} leases name ${NODE2_ADDRESS}, in ${leaseDirectory(scene.state)}/subnets`;
        return (await reaches(scene)) || 'pod1 does not reach pod2';
      },
    },
  ],
};

const refused = (reason: string, task: string, hint: string): Goal => ({
  task,
  hint,
  reached: ({ notes }) =>
    notes.some(note => note.tool === 'forge' && (note.drops[reason] ?? 0) > 0) ||
    `nothing was dropped as ${reason} yet`,
});

/** A capture of a lesson is small; a large file is something else. */
const MOST_CAPTURE_BYTES = 16 << 20;

/** What the captures in the lab's directory say of their packets. */
function capturedComments({ directory }: LabState): string[] {
  const comments: string[] = [];
  for (const file of readdirSync(directory).filter(name => name.endsWith('.pcapng'))) {
    const path = join(directory, file);
    if (statSync(path).size > MOST_CAPTURE_BYTES) continue;
    new PcapngReader({ packet: packet => void comments.push(...packet.comments) }).push(readFileSync(path));
  }
  return comments;
}

export const SPOOFED: Lesson = {
  number: 5,
  title: 'A spoofed datagram refused',
  page: '05-a-spoofed-datagram-refused.md',
  why: 'Whoever can reach port 8285 can send datagrams to it. Which of them get in?',
  up: [],
  goals: [
    refused(
      'ingress-unknown-sender',
      'send datagrams as a stranger',
      'tulle lab forge switch node2 --name lesson-5: the switch holds no lease',
    ),
    refused(
      'ingress-stale-key',
      "send datagrams with node1's address, but without its lease key",
      'tulle lab forge switch node2 --as node1 --key 0xdeadbeef --name lesson-5',
    ),
    refused(
      'ingress-spoofed-source',
      'send datagrams as node1, key and all, with a source inside that is not of its subnet',
      'tulle lab forge switch node2 --as node1 --key right --source 10.42.250.7 --name lesson-5',
    ),
    {
      task: 'capture such a forgery on node2: the file says of each datagram why it was dropped',
      hint: 'tulle capture --socket $(tulle lesson 5 --where)/node2/tulled.sock -w $(tulle lesson 5 --where)/forged.pcapng, and forge meanwhile',
      reached: ({ state }) =>
        capturedComments(state).some(comment => comment.startsWith('dropped: ingress-spoofed-source')) ||
        `no capture in ${state.directory} (*.pcapng) has a packet that was dropped as ingress-spoofed-source`,
    },
    {
      task: 'find the forgery that gets in: what must a sender know, and be able to do?',
      hint: 'leave out the wrong --source: address, key and source are right then, and nothing is dropped',
      reached: ({ notes }) =>
        notes.some(note => note.tool === 'forge' && note.as !== null && Object.keys(note.drops).length === 0) ||
        'every forgery so far was refused',
    },
  ],
};

export const FENCED: Lesson = {
  number: 7,
  title: 'A node that lost its registry',
  page: '07-a-fenced-node.md',
  why: 'A lease is a claim with a deadline. A node that cannot renew it must fall silent before somebody else may take over.',
  up: [],
  setUp: state => eachNode(state, ['--lease-ttl=10s']),
  goals: [
    {
      task: 'cut node1 off from the registry',
      hint: 'tulle lab fault add partition node1-registry --name lesson-7',
      reached: async ({ state }) =>
        (await listFaults(state)).some(fault => fault.where === 'node1-registry' && fault.kind === 'partition') ||
        'node1 still has its registry',
    },
    {
      task: 'see that node1 goes on at first, and falls silent at its deadline',
      hint: 'watch: tulle status --socket DIRECTORY/node1/tulled.sock, until it says FENCED, and look with --check',
      reached: async scene => {
        const { lease } = await statusOf(scene.state, 'node1');
        if (!lease.fenced) return 'node1 is not fenced (yet)';
        if (await reaches(scene)) return 'node1 is fenced, and pod1 reaches pod2 none the less';
        const { drops } = await statusOf(scene.state, 'node1');
        return (drops['egress-fenced'] ?? 0) > 0 || 'nothing was dropped as egress-fenced';
      },
    },
    {
      task: 'trace a packet while node1 is fenced, and see that it does not come far',
      hint: 'tulle lab trace pod1 pod2 --name lesson-7',
      reached: ({ notes }) =>
        notes.some(note => note.tool === 'trace' && note.reason === 'egress-fenced') ||
        'no packet was traced to the fence yet',
    },
    {
      task: 'heal the cut: node1 renews its lease, and pod1 reaches pod2 again',
      hint: 'tulle lab fault remove --all --name lesson-7, and some seconds',
      lasting: true,
      reached: async scene => {
        if ((await listFaults(scene.state)).length > 0) return 'there is still a fault';
        if ((await statusOf(scene.state, 'node1')).lease.fenced) return 'node1 is still fenced';
        return (await reaches(scene)) || 'pod1 does not reach pod2';
      },
    },
  ],
};
