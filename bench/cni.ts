/**
 * tulle-cni against Debian's bridge and host-local: how long a pod's ADD and DEL take. Both plugins run on this machine in
 * host namespaces of their own, on the same pod namespaces, in turns; each figure is a median.
 *
 *   npm run bench:cni                                        the whole table, some 3 minutes; as root
 *   npm run bench:cni -- --rounds 20 --pods 100 --waves 1    a look
 */
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { packageRoot } from '../lib/lab/spawn.ts';
import { makeNamespace } from '../lib/netlink/namespace.ts';
import { removeNamespace } from '../lib/sys/sys.ts';
import { messageOf } from '../lib/util/errors.ts';
import { type Contender, type Network, openReference, openTulle } from './cni/contender.ts';
import { type Launcher, measureFloor, openLauncher } from './cni/launcher.ts';
import { findRuleTools } from './cni/rule-tools.ts';
import { machineCpu } from './cpu.ts';
import { busyWarning, describeCommit, describeMachine, machineLine } from './machine.ts';
import { findProgram } from './programs.ts';
import { median } from './statistics.ts';

/** Issue 5: the most that ours may take, as a fraction of the reference's; the last is against our own empty pool. */
const TARGETS = {
  add: 0.35,
  del: 0.2,
  'add, masquerade': 0.25,
  'del, masquerade': 0.25,
  'all pods in parallel, add': 0.3,
  'all pods in parallel, del': 0.3,
  'add, 20,000 taken': 1.2,
} as const;
type Row = keyof typeof TARGETS;

interface Result {
  row: Row;
  reference: number;
  tulle: number;
  /** What `ratio` divides by. */
  base: number;
}

const TAKEN = 20_000;
/** tulled's JavaScript is compiled while it runs; on a node it has run for long. The reference starts anew each time. */
const WARM_UP = 20;

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '30' },
    pods: { type: 'string', default: '1000' },
    parallel: { type: 'string', default: '16' },
    waves: { type: 'string', default: '3' },
    out: { type: 'string', default: join(packageRoot(), 'bench/results-cni.jsonl') },
  },
});
function wholeNumber(text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1) {
    process.stderr.write(`bench:cni: "${text}" is not a whole number above 0\n`);
    process.exit(1);
  }
  return number;
}
const { rounds, pods, parallel, waves } = {
  rounds: wholeNumber(values.rounds),
  pods: wholeNumber(values.pods),
  parallel: wholeNumber(values.parallel),
  waves: wholeNumber(values.waves),
};

const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** So that each call is about a container of its own. */
let calls = 0;

interface Lane {
  contender: Contender;
  network: Network;
}

/** Medians in milliseconds of one ADD and one DEL a round for each lane, in turns that begin with the next each round. */
function inTurns(lanes: readonly Lane[], netns: string): { add: number; del: number }[] {
  const times = lanes.map(() => ({ add: [] as number[], del: [] as number[] }));
  for (let round = -WARM_UP; round < rounds; round++) {
    for (let turn = 0; turn < lanes.length; turn++) {
      const i = (round + WARM_UP + turn) % lanes.length;
      const { contender, network } = lanes[i];
      // A network may be in two stages.
      const containerId = `${network.name}-${contender.name}-${++calls}`;
      const both = (['ADD', 'DEL'] as const).map(command => ({ command, network, containerId, netns }));
      const [add, del] = contender.run(both, 1).each;
      if (round < 0) continue;
      times[i].add.push(add);
      times[i].del.push(del);
    }
  }
  return times.map(({ add, del }) => ({ add: median(add)!, del: median(del)! }));
}

/** Medians of the wall time of all pods' ADD, then of all pods' DEL; the lanes in turns that begin with the next each wave. */
async function inWaves(lanes: readonly Lane[], namespaces: readonly string[]): Promise<{ add: number; del: number }[]> {
  const times = lanes.map(() => ({ add: [] as number[], del: [] as number[] }));
  for (let wave = 0; wave < waves; wave++) {
    for (let turn = 0; turn < lanes.length; turn++) {
      const i = (wave + turn) % lanes.length;
      const { contender, network } = lanes[i];
      await quiet();
      const all = (command: 'ADD' | 'DEL'): number => {
        const calls = namespaces.map((netns, pod) => ({
          command,
          network,
          netns,
          containerId: `${network.name}-${pod}`,
        }));
        return contender.run(calls, parallel).all;
      };
      times[i].add.push(all('ADD'));
      times[i].del.push(all('DEL'));
    }
  }
  return times.map(({ add, del }) => ({ add: median(add)!, del: median(del)! }));
}

/** A wave leaves the kernel something to do, which is not the next one's: until a quarter of a second is idle, or 5 s. */
async function quiet(): Promise<void> {
  for (let i = 0; i < 20; i++) {
    const before = machineCpu();
    await delay(250);
    if (machineCpu() - before < 0.05) return;
  }
}

async function measure(launcher: Launcher, directory: string, made: string[]): Promise<Result[]> {
  const make = (name: string): string => {
    const path = join(directory, name);
    makeNamespace(path);
    made.push(path);
    return path;
  };
  // The plugins are not in a folder of programs: from usr/bin it is ../lib/cni.
  const found = await findProgram(
    { package: 'containernetworking-plugins', program: '../lib/cni/bridge' },
    { limitMs: 120_000, fetch: true },
  );
  if (typeof found === 'string') throw new Error(`no reference: ${found}`);
  const tools = await findRuleTools(directory);
  const reference = openReference(launcher, make('host-reference'), dirname(found.path), directory, tools);
  const tulle = await openTulle(launcher, make('host-tulle'), directory, tools);
  const both = (network: Network): Lane[] => [reference, tulle].map(contender => ({ contender, network }));
  const network = (name: string, subnet: string, masquerade = false): Network => ({
    name,
    bridge: name,
    subnet,
    masquerade,
  });
  const results: Result[] = [];
  const push = (row: Row, reference: number, tulle: number, base = reference): void => {
    results.push({ row, reference, tulle, base });
  };
  try {
    const pod = make('pod');
    say(`${rounds} rounds of ADD and DEL`);
    const plain = network('plain', '10.71.0.0/16');
    const [a, b] = inTurns(both(plain), pod);
    push('add', a.add, b.add);
    push('del', a.del, b.del);
    say(`${rounds} rounds with masquerade`);
    const [c, d] = inTurns(both(network('masq', '10.72.0.0/16', true)), pod);
    push('add, masquerade', c.add, d.add);
    push('del, masquerade', c.del, d.del);
    say(`${TAKEN} addresses taken`);
    const full = network('full', '10.73.0.0/16');
    for (const { contender } of both(full)) contender.fill(full, TAKEN, pod);
    // Ours against our empty pool, in turns; the reference, which heats the machine for a while, after that.
    const [f, empty] = inTurns(
      [full, plain].map(network => ({ contender: tulle, network })),
      pod,
    );
    const [e] = inTurns([{ contender: reference, network: full }], pod);
    push('add, 20,000 taken', e.add, f.add, empty.add);
    say(`${pods} pods, ${parallel} at once, ${waves} times each`);
    const namespaces = Array.from({ length: pods }, (_, i) => make(`pod-${i}`));
    const many = network('many', '10.74.0.0/16');
    const [g, h] = await inWaves(both(many), namespaces);
    push('all pods in parallel, add', g.add, h.add);
    push('all pods in parallel, del', g.del, h.del);
    return results;
  } finally {
    await tulle.close();
  }
}

/** What starting any program costs here; part of every figure. */
function emptyProgram(launcher: Launcher, namespace: string): number {
  const jobs = Array.from({ length: 30 }, () => ({ file: '/bin/true', input: '', environment: {} }));
  return median(launcher.run(namespace, jobs, 1).each)!;
}

function table(results: readonly Result[]): string {
  const lines = results.map(({ row, reference, tulle, base }) => {
    const ratio = tulle / base;
    const verdict = ratio <= TARGETS[row] ? 'ok' : 'MISSED';
    const against = base === reference ? '' : ' of our empty pool';
    const cells = [row.padEnd(28), `${reference.toFixed(1)} ms`.padStart(12), `${tulle.toFixed(1)} ms`.padStart(12)];
    return `${cells.join('')}${ratio.toFixed(2).padStart(8)}${`<= ${TARGETS[row]}`.padStart(9)}  ${verdict}${against}`;
  });
  const head = `${'median'.padEnd(28)}${'reference'.padStart(12)}${'tulle'.padStart(12)}${'ratio'.padStart(8)}${'target'.padStart(9)}`;
  return [head, ...lines].join('\n');
}

const directory = mkdtempSync(join(tmpdir(), 'tulle-bench-cni-'));
const made: string[] = [];
try {
  const machine = await describeMachine();
  const launcher = await openLauncher(directory);
  const place = join(directory, 'nobody');
  makeNamespace(place);
  made.push(place);
  const empty = emptyProgram(launcher, place);
  const floor = await measureFloor(directory, Math.min(rounds * 3, 1000));
  const results = await measure(launcher, directory, made);
  console.log(machineLine(machine));
  const warning = busyWarning(machine);
  if (warning !== undefined) console.log(warning);
  console.log(
    `rounds: ${rounds}, pods: ${pods}, at once: ${parallel}, waves: ${waves}; an empty program takes ${empty.toFixed(1)} ms;\n` +
      `the kernel alone: pair ${floor.pair.toFixed(2)} ms, addresses and routes ${floor.rest.toFixed(2)}, gone again in ${floor.gone.toFixed(2)}\n`,
  );
  console.log(table(results));
  mkdirSync(dirname(values.out), { recursive: true });
  const line = {
    machine,
    ...describeCommit(),
    rounds,
    pods,
    parallel,
    waves,
    emptyMs: empty,
    floor,
    targets: TARGETS,
    results,
  };
  appendFileSync(values.out, `${JSON.stringify(line)}\n`);
} catch (error) {
  say(`bench:cni: ${messageOf(error)}`);
  process.exitCode = 1;
} finally {
  for (const path of made) removeNamespace(path);
  rmSync(directory, { recursive: true, force: true });
}
