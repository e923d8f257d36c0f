/** Lessons about moving packets: the naive loop, what batching buys, flannel's format against ours. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { leaseDirectory } from './cluster.ts';
import type { Goal, Lesson, Scene } from './lesson.ts';
import type { Note } from './notebook.ts';
import { OVERLAY_MTU } from './plan.ts';

type TcpNote = Extract<Note, { tool: 'tcp' }>;

const streams = ({ notes }: Scene, from: string): TcpNote[] =>
  notes.filter((note): note is TcpNote => note.tool === 'tcp' && note.from.startsWith(from) && note.gbps !== null);

/** A stream between pods over that transport. */
const measured = (transport: string, lab: string): Goal => ({
  task: `measure TCP from pod1 to pod2 with the transport "${transport}"`,
  hint: `tulle lab tcp pod1 pod2 --name ${lab}${transport === 'dgram' ? '' : `, after: tulle lab restart --transport ${transport} --name ${lab}`}`,
  reached: scene =>
    streams(scene, 'pod').some(note => note.transport === transport) ||
    `no stream between pods has been measured with "${transport}"`,
});

export const NAIVE_LOOP: Lesson = {
  number: 1,
  title: 'The naive loop',
  page: '01-the-naive-loop.md',
  why: 'An overlay reads a packet, wraps it, sends it. What does that cost, when it is done one packet a time?',
  up: ['--transport', 'dgram'],
  goals: [
    measured('dgram', 'lesson-1'),
    {
      task: 'measure the plain underlay, from node1 to node2',
      hint: 'tulle lab tcp node1 node2 --name lesson-1',
      reached: scene => streams(scene, 'node').length > 0 || 'no stream between nodes has been measured',
    },
    {
      task: 'how many datagrams does one batch carry here? Answer with a whole number',
      hint: 'the column "batches" is batches for each datagram: 1 divided by it. tulle lesson 1 --answer NUMBER',
      reached: ({ answers }) =>
        answers.includes('1') || (answers.length === 0 ? 'no answer yet' : `not ${answers.at(-1)}: look at "batches"`),
    },
  ],
};

/** Of the best measurement with each transport. */
function best(scene: Scene, transport: string): number {
  return Math.max(0, ...streams(scene, 'pod').flatMap(note => (note.transport === transport ? [note.gbps ?? 0] : [])));
}

/** What the ladder must bring at least, so that a busy machine does not fail anybody. */
const LEAST_GAIN = 2;

export const BATCHING: Lesson = {
  number: 2,
  title: 'What batching buys',
  page: '02-what-batching-buys.md',
  why: 'The same wire, the same code for each packet: only the number of system calls changes. How much is that?',
  up: ['--transport', 'dgram'],
  goals: [
    measured('dgram', 'lesson-2'),
    measured('batch', 'lesson-2'),
    measured('offload', 'lesson-2'),
    {
      task: `see that "offload" is more than ${LEAST_GAIN} times as fast as "dgram", by your own figures`,
      hint: 'measure again when the machine is quiet: the best figure of each transport counts',
      reached: scene => {
        const [slow, fast] = [best(scene, 'dgram'), best(scene, 'offload')];
        if (slow === 0 || fast === 0) return 'one of the two has not been measured';
        return fast >= LEAST_GAIN * slow || `offload ${fast} Gb/s, dgram ${slow} Gb/s`;
      },
    },
  ],
};

/** The backend that the net-conf names. */
function backendOf({ state }: Scene): string {
  try {
    const config = JSON.parse(readFileSync(join(leaseDirectory(state), 'config'), 'utf8'));
    return String(config?.Backend?.Type);
  } catch {
    return 'none that can be read';
  }
}

const streamsOfMtu = (scene: Scene, mtu: number): TcpNote[] => streams(scene, 'pod').filter(note => note.mtu === mtu);

export const FORMATS: Lesson = {
  number: 6,
  title: "Flannel's format against ours",
  page: '06-flannels-format-against-ours.md',
  why: 'Flannel sends the bare packet, we put 12 bytes before it. What do these bytes cost, and what do they buy?',
  up: [],
  goals: [
    {
      task: 'measure TCP from pod1 to pod2 in our format',
      hint: 'tulle lab tcp pod1 pod2 --name lesson-6, before you change the backend',
      reached: scene =>
        streamsOfMtu(scene, OVERLAY_MTU.tulle).length > 0 || `no stream was measured at an MTU of ${OVERLAY_MTU.tulle}`,
    },
    {
      task: 'change the network to flannel\'s format: Backend "udp" in the net-conf',
      hint: 'write {"Network":"10.42.0.0/16","SubnetLen":24,"Backend":{"Type":"udp"}} to the file "config" among the leases',
      reached: scene => backendOf(scene) === 'udp' || `the net-conf's backend is ${backendOf(scene)}`,
    },
    {
      task: "measure TCP from pod1 to pod2 in flannel's format",
      hint: 'tulle lab restart --name lesson-6, then tulle lab tcp pod1 pod2 --name lesson-6',
      reached: scene =>
        streamsOfMtu(scene, OVERLAY_MTU.udp).length > 0 || `no stream was measured at an MTU of ${OVERLAY_MTU.udp}`,
    },
    {
      task: "which drop reason can a node that speaks flannel's format never count?",
      hint: 'what does our header carry that a bare packet does not? tulle lesson 6 --answer REASON',
      reached: ({ answers }) =>
        answers.includes('ingress-stale-key') ||
        (answers.length === 0 ? 'no answer yet' : `not ${answers.at(-1)}: it can be seen without our header`),
    },
  ],
};
