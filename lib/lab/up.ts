/**
 * `tulle lab up`, from the lock to the last removal:
 *   1. the lock, and what a killed lab left behind        4. pods on each node's subnet
 *   2. the underlay: switch and nodes                     5. measurements, the picture or the JSON line, the page
 *   3. the registry, a tulled on each node, their leases  6. wait for the end, take everything down
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PageServer } from '../observe/page-server.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { buildUnderlay } from './build.ts';
import { type Daemon, howEnded, lastLines, startDaemon, waitReady } from './cluster.ts';
import { readNode, readPodNetwork } from './facts.ts';
import { guardFaults } from './fault-guard.ts';
import { hintsFor } from './hints.ts';
import { ensureEtcd, readLeases, readPast, startRegistry } from './leases.ts';
import { type End, measurePairs, measureTcp, waitForPaths } from './measure.ts';
import { startLabPage } from './page.ts';
import { DOOR_PORT_VARIABLE, DOOR_SOCKET_VARIABLE } from './page-door.ts';
import { type LabFacts, type PodFacts, picture } from './picture.ts';
import {
  type LabOptions,
  type LabPlan,
  type LabTransport,
  OVERLAY,
  pairsOf,
  planLab,
  TRANSPORTS,
  UNDERLAY,
} from './plan.ts';
import { plugPods } from './plug.ts';
import { openProgress, type Progress } from './progress.ts';
import { stopDaemon } from './restart.ts';
import { resultOf } from './result.ts';
import { checkTun, isInside, watchLifeline } from './rootless.ts';
import * as store from './state.ts';
import { hasRemains, tearDown } from './teardown.ts';

export interface UpOptions extends LabOptions {
  readonly root: string;
  /** Of each throughput measurement. */
  readonly seconds: number;
  /** Measure TCP with the other transports, too. */
  readonly compare: boolean;
  readonly once: boolean;
  readonly json: boolean;
  /** Serve the live page while the lab stands; its port, where one was asked for. */
  readonly page: boolean;
  readonly pagePort: number | undefined;
}

/** Runs a lab; resolves to the exit code. Rejects after everything that it made is gone again. */
export async function up(options: UpOptions): Promise<number> {
  const progress = openProgress(process.stderr);
  const { root, name } = options;
  checkTun();
  store.ensureStateRoot(root, isInside());
  const lock = store.takeLock(root, name);
  if (lock === undefined) throw runningAlready(root, name);

  const end = listenForTheEnd();
  let facts: LabFacts | undefined;
  let page: PageServer | undefined;
  let ended = false;
  try {
    if (hasRemains(root, name))
      await progress.step('removing what an earlier lab left behind', () => tearDown(root, name));
    if (options.registry === 'etcd') await progress.step('looking for an etcd server', ensureEtcd);
    const running = run(options, progress, end.signal);
    running.catch(() => {}); // it goes on failing after we stopped to listen
    const standing = await Promise.race([running, end.promise]);
    facts = standing?.facts;
    if (standing === undefined) ended = true;
    else {
      if (!options.once) page = await openPage(standing, options, progress, end.signal);
      // Now that whoever waits for it finds everything.
      store.updateState(standing.state, record => {
        record.ready = true;
      });
      show(standing.facts, options, page);
      if (!options.once) await end.promise;
    }
  } finally {
    end.begin();
    await page?.close();
    if (hasRemains(root, name)) await progress.step('taking the lab down', () => tearDown(root, name));
    store.releaseLock(root, name, lock);
    store.removeStateRoot(root);
  }
  if (options.once && ended) throw new TulleError('interrupted', 'the lab was ended before it had measured anything');
  if (options.once && facts !== undefined && options.json) process.stdout.write(`${JSON.stringify(resultOf(facts))}\n`);
  return 0;
}

function runningAlready(root: string, name: string): TulleError {
  const pid = store.loadState(root, name)?.record.owner.pid;
  const who = pid === undefined ? '' : ` (process ${pid})`;
  return new TulleError(
    'running',
    `a lab named "${name}" is running already${who}: end it with "tulle lab down", or give this one a --name`,
  );
}

interface TheEnd {
  /** Resolves to undefined when somebody wants the lab to end. */
  readonly promise: Promise<undefined>;
  /** Aborted at the same time, and when the removal begins. */
  readonly signal: AbortSignal;
  begin(): void;
}

/** Ctrl-C, SIGTERM, a terminal that closes, the process outside that ends: all the same, and heard once. */
function listenForTheEnd(): TheEnd {
  const controller = new AbortController();
  const begin = (): void => controller.abort();
  const promise = new Promise<undefined>(resolve =>
    controller.signal.addEventListener('abort', () => resolve(undefined)),
  );
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, begin);
  // Whoever read our output may be gone; the removal must not fail for that.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', begin);
  watchLifeline(begin);
  return { promise, signal: controller.signal, begin };
}

/** A lab that stands. */
interface Standing {
  state: store.LabState;
  facts: LabFacts;
  /** The same nodes, on another transport. */
  replace(transport: LabTransport): Promise<void>;
}

/** Steps 2 to 5. After `signal` no further step begins. */
async function run(options: UpOptions, progress: Progress, signal: AbortSignal): Promise<Standing> {
  const start = performance.now();
  const step: Progress['step'] = (what, action) => {
    signal.throwIfAborted();
    return progress.step(what, action);
  };
  const plan = planLab(options);
  const state = store.createState(options.root, options.name, { rootless: isInside(), registry: options.registry });

  await step(`the underlay: a switch and ${plan.nodes} nodes`, () => buildUnderlay(state, plan));
  await step(`the registry: ${options.registry}`, () => startRegistry(state, plan));
  let daemons = await step(`tulled on ${plan.nodes} nodes, until each has its lease`, () => startDaemons(state, plan));
  const pods = await step(`${plan.podPlans.length} pods`, () => plugAll(state, plan, daemons));
  const end = (name: string, address: string): End => ({
    name,
    namespaceFile: store.namespaceFile(state, name),
    address,
  });
  const ends = pods.map(pod => end(pod.name, pod.address));
  await step('a path from the first pod to every other', () => waitForPaths(ends[0], ends));
  const seconds = (performance.now() - start) / 1000;

  const firsts = plan.nodePlans.map(node => ends[pods.findIndex(pod => pod.node === node.name)]);
  const bare = plan.nodePlans.slice(0, 2).map(node => end(node.name, node.address));
  const pairs = await step('round trips', () => measurePairs(pairsOf(firsts)));
  const [underlayPair] = await step('round trips over the plain underlay', () => measurePairs(pairsOf(bare)));
  const [near, far] = firsts;
  const load = { seconds: options.seconds };
  const overlay = await step(`TCP over the overlay, ${options.seconds} s`, () => measureTcp(near, far, load));
  const plain = await step(`TCP over the plain underlay, ${options.seconds} s`, () =>
    measureTcp(bare[0], bare[1], load),
  );
  const others: { transport: LabTransport; gbps: number }[] = [];
  for (const transport of options.compare ? TRANSPORTS.filter(name => name !== options.transport) : []) {
    daemons = await step(`tulled again, with transport ${transport}`, () =>
      replaceDaemons(state, plan, daemons, transport),
    );
    await step('a path from the first pod to every other', () => waitForPaths(ends[0], ends));
    const { gbps } = await step(`TCP over the overlay, ${options.seconds} s`, () => measureTcp(near, far, load));
    others.push({ transport, gbps });
  }
  if (others.length > 0) {
    const { transport } = options;
    daemons = await step(`tulled again, with transport ${transport}`, () =>
      replaceDaemons(state, plan, daemons, transport),
    );
    await step('a path from the first pod to every other', () => waitForPaths(ends[0], ends));
  }
  const leases = await readLeases(state, options.registry);
  const facts: LabFacts = {
    name: options.name,
    registry: options.registry,
    transport: options.transport,
    underlay: UNDERLAY.network,
    network: OVERLAY.network,
    seconds,
    nodes: daemons.map(daemon => readNode(state, daemon, leases)),
    pods,
    pairs,
    underlayPair,
    tcp: {
      from: near.name,
      to: far.name,
      seconds: options.seconds,
      gbps: overlay.gbps,
      underlayGbps: plain.gbps,
      others,
    },
    hints: options.once ? [] : hintsFor(options.name, near.name, far.address, state.directory),
  };
  signal.throwIfAborted();
  writeFileSync(join(state.directory, 'picture.txt'), picture(facts).join('\n'));
  writeFileSync(join(state.directory, 'result.json'), `${JSON.stringify(resultOf(facts))}\n`);
  const replaced = new WeakSet<Daemon>();
  const report = (): void => {
    for (const daemon of daemons) reportEnd(daemon, progress, () => signal.aborted || replaced.has(daemon));
  };
  report();
  guardFaults(state, signal, text => progress.note(text));
  const replace = async (transport: LabTransport): Promise<void> => {
    for (const daemon of daemons) replaced.add(daemon);
    daemons = await replaceDaemons(state, plan, daemons, transport);
    report();
  };
  return { state, facts, replace };
}

/** The live page, whose failure is no reason to give up the lab. */
async function openPage(
  { state, facts, replace }: Standing,
  { page, pagePort, registry }: UpOptions,
  progress: Progress,
  signal: AbortSignal,
): Promise<PageServer | undefined> {
  if (!page) return undefined;
  try {
    const past = registry === 'etcd' ? { past: () => readPast(state) } : {};
    const server = await startLabPage({ state, facts, port: pagePort, replace, signal, ...past, ...insideDoor() });
    store.savePageUrl(state, server.url);
    return server;
  } catch (error) {
    progress.note(`there is no page: ${messageOf(error)}`);
    return undefined;
  }
}

/** In namespaces of our own the page is served where the process outside finds it. */
function insideDoor(): { socketPath: string; port: number } | undefined {
  const { [DOOR_SOCKET_VARIABLE]: socketPath, [DOOR_PORT_VARIABLE]: port } = process.env;
  return isInside() && socketPath !== undefined ? { socketPath, port: Number(port) } : undefined;
}

async function startDaemons(state: store.LabState, plan: LabPlan): Promise<Daemon[]> {
  const daemons = plan.nodePlans.map(node => startDaemon(state, plan, node));
  await Promise.all(daemons.map(waitReady));
  return daemons;
}

/** The same nodes with the same leases, on another transport: the pods stay. Whoever started what runs there now, it ends. */
async function replaceDaemons(
  state: store.LabState,
  plan: LabPlan,
  daemons: readonly Daemon[],
  transport: LabTransport,
): Promise<Daemon[]> {
  const before = daemons.map(daemon => readPodNetwork(daemon.subnetFile).gateway);
  await Promise.all(daemons.map(({ node }) => stopDaemon(state, node.name)));
  const started = await startDaemons(state, { ...plan, transport });
  started.forEach((daemon, i) => {
    if (readPodNetwork(daemon.subnetFile).gateway === before[i]) return;
    throw new TulleError('daemon', `${daemon.node.name} came back with another subnet: its pods are cut off`);
  });
  return started;
}

async function plugAll(state: store.LabState, plan: LabPlan, daemons: readonly Daemon[]): Promise<PodFacts[]> {
  const plugged = await Promise.all(
    daemons.map(async daemon => {
      const { name } = daemon.node;
      const { mtu } = readPodNetwork(daemon.subnetFile);
      const pods = plan.podPlans.filter(pod => pod.node === name);
      const addresses = await plugPods(state, daemon, pods);
      return pods.map((pod, i) => ({ name: pod.name, node: name, address: addresses[i], mtu }));
    }),
  );
  return plugged.flat();
}

/** While the lab stands, a daemon that ends is news; when the lab ends it is not. */
function reportEnd(daemon: Daemon, progress: Progress, isExpected: () => boolean): void {
  daemon.process.once('exit', () => {
    if (isExpected()) return;
    progress.note(`tulled on ${daemon.node.name} ended ${howEnded(daemon.process)}: ${lastLines(daemon.logFile, 1)}`);
  });
}

function show(facts: LabFacts, options: UpOptions, page: PageServer | undefined): void {
  if (!options.json) process.stdout.write(`${picture(facts).join('\n')}\n`);
  else if (!options.once) process.stdout.write(`${JSON.stringify(resultOf(facts))}\n`);
  if (!options.once) process.stderr.write('The lab is up. Ctrl-C takes it down.\n');
  if (page !== undefined) process.stderr.write(`The microscope, for your browser: ${page.url}\n`);
}
