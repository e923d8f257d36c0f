/** The lab's measuring tools: what a learner needs beside `lab exec`, on a machine that has no ping and no iperf. */
import { setTimeout as delay } from 'node:timers/promises';
import { askTrace, exitCodeOf } from '../observe/trace/command.ts';
import { checkQuestion } from '../observe/trace/packet.ts';
import { printStory } from '../observe/trace/print.ts';
import { codeOf, TulleError } from '../util/errors.ts';
import { parseAddress4 } from '../wire/ip4.ts';
import { controlSocket } from './cluster.ts';
import { type Cost, costOf, costTable, sampleOf } from './cost.ts';
import { forgedPacket, sendForged } from './forge.ts';
import { measureTcp } from './measure.ts';
import { writeNote } from './notebook.ts';
import { type OptionTable, type ParsedOptions, parseOptions, usageError } from './options.ts';
import { median, ping } from './ping.ts';
import { type Place, placeOf, statusOf } from './places.ts';
import { OVERLAY, TRANSPORTS } from './plan.ts';
import { restartDaemon, stopDaemon } from './restart.ts';
import { isInside, runBeside } from './rootless.ts';
import { runningLab } from './running.ts';
import { type LabState, stateRoot } from './state.ts';
import { FORGE_HELP, PING_HELP, RESTART_HELP, STOP_HELP, TCP_HELP, TRACE_HELP } from './tool-help.ts';

interface Tool {
  readonly help: string;
  readonly table: OptionTable;
  run(state: LabState, options: ParsedOptions): Promise<number>;
}

const COMMON: OptionTable = { help: { flag: true }, h: { flag: true }, name: { text: 'LAB' } };
/** What TCP may take beyond its time before it counts as stuck: two processes have to start. */
const PATIENCE_MS = 4000;
/** A counter is published at the end of a batch. */
const SETTLE_MS = 3000;

export const TOOLS: Readonly<Record<string, Tool>> = {
  ping: {
    help: PING_HELP,
    table: {
      ...COMMON,
      json: { flag: true },
      count: { numbers: [1, 10_000] },
      bytes: { numbers: [28, 65_000] },
      interval: { numbers: [1, 60_000] },
    },
    run: runPing,
  },
  tcp: {
    help: TCP_HELP,
    table: { ...COMMON, json: { flag: true }, seconds: { numbers: [1, 60] } },
    run: runTcp,
  },
  forge: {
    help: FORGE_HELP,
    table: {
      ...COMMON,
      as: { text: 'NODE' },
      key: { text: 'KEY' },
      source: { text: 'A' },
      count: { numbers: [1, 10_000] },
    },
    run: runForge,
  },
  trace: {
    help: TRACE_HELP,
    table: {
      ...COMMON,
      json: { flag: true },
      explain: { flag: true },
      proto: { words: ['icmp', 'tcp', 'udp'] },
      port: { numbers: [1, 65_535] },
      size: { numbers: [1, 65_535] },
      ttl: { numbers: [1, 255] },
    },
    run: runTrace,
  },
  restart: { help: RESTART_HELP, table: { ...COMMON, transport: { words: TRANSPORTS } }, run: runRestart },
  stop: { help: STOP_HELP, table: COMMON, run: runStop },
};

/** Runs `tulle lab NAME ARGS` for one of the TOOLS. */
export async function labTool(name: string, args: readonly string[]): Promise<number> {
  const tool = TOOLS[name];
  const options = parseOptions(args, tool.table, `tulle lab ${name} --help`);
  if (options.flags.has('help') || options.flags.has('h')) return print(tool.help);
  const root = stateRoot();
  const state = runningLab(root, options.values.get('name'));
  if (state.record.rootless && !isInside()) return runBeside(state, root);
  return tool.run(state, options);
}

function twoPlaces(state: LabState, options: ParsedOptions, verb: string): [Place, Place] {
  const [from, to, ...more] = [...options.positional, ...(options.rest ?? [])];
  if (from === undefined || to === undefined || more.length > 0)
    throw usageError(`lab ${verb} takes two places, for example: tulle lab ${verb} pod1 pod2`);
  return [placeOf(state, from), placeOf(state, to)];
}

async function runPing(state: LabState, options: ParsedOptions): Promise<number> {
  const [from, to] = twoPlaces(state, options, 'ping');
  const bytes = options.numbers.get('bytes') ?? 84;
  const count = options.numbers.get('count') ?? 5;
  const intervalMs = options.numbers.get('interval') ?? 20;
  const result = await ping(from.namespaceFile, to.address, { count, intervalMs, timeoutMs: 1000, bytes });
  const { sent, received, rttsMs, duplicates } = result;
  writeNote(state, { tool: 'ping', from: from.name, to: to.name, bytes, received });
  if (options.flags.has('json')) {
    const facts = { from: from.name, to: to.name, bytes, sent, received, duplicates, medianMs: median(rttsMs) };
    print(`${JSON.stringify(facts)}\n`);
  } else {
    const middle = median(rttsMs);
    const time = middle === null ? '' : `, round trip ${middle.toFixed(3)} ms (median)`;
    const twice = duplicates === 0 ? '' : `, ${duplicates} came twice`;
    print(`${from.name} → ${to.name}  ${received} of ${sent} echoes of ${bytes} bytes came back${twice}${time}\n`);
  }
  return received > 0 ? 0 : 1;
}

async function runTcp(state: LabState, options: ParsedOptions): Promise<number> {
  const [from, to] = twoPlaces(state, options, 'tcp');
  const seconds = options.numbers.get('seconds') ?? 2;
  const nodes = [...new Set([from.node, to.node])].filter(node => node !== undefined);
  if (nodes.length === 0 || from.node === undefined) throw usageError('lab tcp goes from a node or a pod to another');
  const before = await Promise.all(nodes.map(node => sampleOf(state, node)));
  const { overlay } = await statusOf(state, nodes[0]);
  const about = { from: from.name, to: to.name, transport: overlay?.transport ?? '', mtu: overlay?.mtu ?? 0 };
  let gbps: number;
  try {
    ({ gbps } = await measureTcp(from, to, { seconds }, seconds * 1000 + PATIENCE_MS));
  } catch (error) {
    if (codeOf(error) === 'stalled') writeNote(state, { tool: 'tcp', ...about, gbps: null });
    throw error;
  }
  writeNote(state, { tool: 'tcp', ...about, gbps });
  const after = await Promise.all(nodes.map(node => sampleOf(state, node)));
  const costs: Cost[] = nodes.map((node, i) => costOf(node, before[i], after[i]));
  if (options.flags.has('json')) print(`${JSON.stringify({ from: from.name, to: to.name, seconds, gbps, costs })}\n`);
  else print(`${from.name} → ${to.name}  TCP for ${seconds} s: ${gbps} Gb/s\n\n${costTable(costs)}`);
  return 0;
}

async function runTrace(state: LabState, options: ParsedOptions): Promise<number> {
  const [from, to, ...more] = [...options.positional, ...(options.rest ?? [])];
  if (from === undefined || to === undefined || more.length > 0)
    throw usageError('lab trace takes two places, for example: tulle lab trace pod1 pod2');
  const { node, address: source } = placeOf(state, from);
  if (node === undefined || node === from) throw usageError('lab trace begins at a pod: its node sends the packet');
  const destination = parseAddress4(to) === undefined ? placeOf(state, to).address : to;
  const { numbers, values, flags } = options;
  const question = checkQuestion({
    source,
    destination,
    protocol: values.get('proto') ?? 'icmp',
    port: numbers.get('port'),
    size: numbers.get('size'),
    ttl: numbers.get('ttl'),
  });
  const story = await askTrace(controlSocket(state, node), question, flags.has('explain'));
  const { outcome, reason = null } = story;
  if (story.sent) writeNote(state, { tool: 'trace', from, to, size: question.size, outcome, reason });
  print(flags.has('json') ? `${JSON.stringify(story)}\n` : printStory(story));
  return exitCodeOf(story);
}

async function runForge(state: LabState, options: ParsedOptions): Promise<number> {
  const [from, to] = twoPlaces(state, options, 'forge');
  if (to.node !== to.name) throw usageError('lab forge takes a node as its target: pods hear nothing of the underlay');
  const as = options.values.get('as');
  const claimed = as === undefined ? undefined : placeOf(state, as);
  const count = options.numbers.get('count') ?? 10;
  const target = await statusOf(state, to.name);
  const destination = firstPod(target.lease.subnet, to.name);
  const inside = options.values.get('source');
  const source = inside === undefined ? await defaultSource(state, as) : parseAddress4(inside);
  if (source === undefined) throw usageError(`--source is an IPv4 address, not "${inside}"`);
  const packet = forgedPacket({
    from: parseAddress4((claimed ?? from).address)!,
    to: parseAddress4(to.address)!,
    port: OVERLAY.port,
    key: await keyOf(state, options.values.get('key'), as),
    source,
    destination,
  });
  sendForged(from.namespaceFile, packet, to.address, count);
  const risen = await waitForDrops(state, to.name, target.drops, count);
  writeNote(state, { tool: 'forge', to: to.name, as: as ?? null, drops: Object.fromEntries(risen) });
  if (risen.length === 0) print(`${count} datagrams sent, and ${to.name} dropped none of them\n`);
  for (const [reason, more] of risen) print(`${to.name} dropped ${more}: ${reason}\n`);
  return 0;
}

async function keyOf(state: LabState, text: string | undefined, as: string | undefined): Promise<number> {
  if (text === undefined) return 0;
  if (text === 'right') {
    if (as === undefined) throw usageError('--key right needs --as NODE: whose key?');
    return Number.parseInt((await statusOf(state, as)).lease.key ?? '0', 16);
  }
  const key = Number(text);
  if (Number.isInteger(key) && key >= 0 && key <= 0xffff_ffff) return key;
  throw usageError(`--key is a number of 32 bits, or "right", not "${text}"`);
}

async function defaultSource(state: LabState, as: string | undefined): Promise<number> {
  if (as === undefined) return parseAddress4(OVERLAY.network.split('/')[0])! + 0xff02;
  return firstPod((await statusOf(state, as)).lease.subnet, as);
}

/** x.y.z.2 of a subnet: .1 is the bridge. */
function firstPod(subnet: string | null, node: string): number {
  const address = parseAddress4(subnet?.split('/')[0] ?? '');
  if (address === undefined) throw new TulleError('no-lease', `${node} has no lease, so no pods to speak of`);
  return address + 2;
}

async function waitForDrops(
  state: LabState,
  node: string,
  before: Readonly<Record<string, number>>,
  count: number,
): Promise<[string, number][]> {
  const deadline = performance.now() + SETTLE_MS;
  for (;;) {
    const { drops } = await statusOf(state, node);
    const risen = Object.entries(drops).flatMap(([reason, now]): [string, number][] => {
      const more = now - (before[reason] ?? 0);
      return more > 0 && reason.startsWith('ingress-') ? [[reason, more]] : [];
    });
    if (risen.some(([, more]) => more >= count) || performance.now() > deadline) return risen;
    await delay(50);
  }
}

async function runRestart(state: LabState, options: ParsedOptions): Promise<number> {
  const all = state.record.namespaces.filter(entry => entry.kind === 'node').map(entry => entry.name);
  const nodes = options.positional.length === 0 ? all : options.positional;
  const stranger = nodes.find(node => !all.includes(node));
  if (stranger !== undefined) throw usageError(`"${stranger}" is not a node of this lab: it has ${all.join(', ')}`);
  const flags = [...(options.rest ?? [])];
  const odd = flags.find(flag => !/^--?[a-z][\w-]*(=.*)?$/.test(flag));
  if (odd !== undefined) throw usageError(`"${odd}" is not a flag as --name=value`);
  const transport = options.values.get('transport');
  if (transport !== undefined) flags.push(`--transport=${transport}`);
  await Promise.all(nodes.map(node => stopDaemon(state, node)));
  for (const node of nodes) await restartDaemon(state, node, flags);
  return print(`tulled runs again on ${nodes.join(', ')}${flags.length === 0 ? '' : ` with ${flags.join(' ')}`}\n`);
}

async function runStop(state: LabState, options: ParsedOptions): Promise<number> {
  const [node, ...more] = options.positional;
  const isNode = state.record.namespaces.some(entry => entry.kind === 'node' && entry.name === node);
  if (!isNode || more.length > 0) throw usageError('lab stop takes one node, for example: tulle lab stop node2');
  const ran = await stopDaemon(state, node);
  return print(ran ? `tulled on ${node} has ended\n` : `tulled on ${node} was not running\n`);
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
