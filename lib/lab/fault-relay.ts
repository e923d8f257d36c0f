/**
 * The relay: a process in the switch's namespace that carries the frames of every link with a fault.
 *
 *   fault-relay.js ROOT LAB
 *
 * It does what it is told over ROOT/LAB/faults.sock, ends when it is told to, when the lab's process ends, or at SIGTERM,
 * and gives the links back where the lab still stands.
 */
import { unlinkSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { withRtnetlink } from '../netlink/netlink.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { parseAddress4 } from '../wire/ip4.ts';
import type { RelayAnswer, RelayReport, RelayRequest } from './fault-client.ts';
import { macOf, type Station } from './fault-frame.ts';
import { FaultLink } from './fault-link.ts';
import { type Fault, placesOf, relaySocket } from './fault-record.ts';
import { REGISTRY_PLACE, rulesOf } from './fault-spec.ts';
import { SWITCH_BRIDGE, UNDERLAY } from './plan.ts';
import { type LabState, loadState, namespaceFile, ownerAlive } from './state.ts';

const OWNER_CHECK_MS = 500;
const LONGEST_REQUEST = 1 << 20;
const ROUTER = parseAddress4(UNDERLAY.switchAddress)!;

class Relay {
  readonly #state: LabState;
  readonly #links = new Map<string, FaultLink>();
  readonly #stations = new Map<string, Station>();

  constructor(state: LabState) {
    this.#state = state;
  }

  /** Makes links and rules those of `faults`. What fails leaves the rest as it is. */
  apply(faults: readonly Fault[]): void {
    const rules = rulesOf(
      faults.filter(fault => fault.state === 'on'),
      placesOf(this.#state),
    );
    for (const node of rules.keys()) {
      if (this.#links.has(node)) continue;
      const self = this.#station(node);
      if (self === undefined) throw new TulleError('relay', `${node} has no eth0 with an address`);
      this.#links.set(node, new FaultLink(node, namespaceFile(this.#state, node), self, ROUTER));
    }
    for (const [node, link] of this.#links) {
      link.flush();
      link.chain.update(node, rules.get(node) ?? [], peer => this.#station(peer));
      if (!link.chain.empty) continue;
      this.#links.delete(node);
      link.close();
    }
  }

  /** Where a node, or the switch, is; looked up once. */
  #station(place: string): Station | undefined {
    const known = this.#stations.get(place);
    if (known !== undefined) return known;
    const isSwitch = place === REGISTRY_PLACE;
    const [namespace, name] = isSwitch ? [undefined, SWITCH_BRIDGE] : [namespaceFile(this.#state, place), 'eth0'];
    const station = withRtnetlink(namespace, netlink => {
      const link = netlink.link(name);
      const [address] = netlink.addresses({ link: name, family: 4 });
      return { mac: macOf(link?.mac ?? ''), address: parseAddress4(address?.address ?? '') };
    });
    if (Number.isNaN(station.mac) || station.address === undefined) return undefined;
    const found: Station = { mac: station.mac, address: station.address };
    this.#stations.set(place, found);
    return found;
  }

  report(): RelayReport {
    const hits: Record<string, number> = {};
    const links: RelayReport['links'] = Object.fromEntries(
      [...this.#links].map(([node, { counts }]) => [node, counts]),
    );
    for (const link of this.#links.values())
      for (const [id, count] of link.chain.hits()) hits[id] = (hits[id] ?? 0) + count;
    return { hits, links };
  }

  close(): void {
    for (const link of this.#links.values()) link.close();
    this.#links.clear();
  }
}

function answerTo(relay: Relay, line: string, stop: () => void): RelayAnswer {
  try {
    const request = JSON.parse(line) as RelayRequest;
    if (request.verb === 'apply') relay.apply(request.faults);
    else if (request.verb === 'stop') stop();
    else if (request.verb !== 'report') throw new TulleError('relay', 'it does not know this verb');
    return { ok: true, report: relay.report() };
  } catch (error) {
    return { ok: false, error: messageOf(error) };
  }
}

function serve(relay: Relay, socket: Socket, stop: () => void): void {
  let text = '';
  socket.setEncoding('utf8');
  socket.on('error', () => socket.destroy());
  socket.on('data', (piece: string) => {
    text += piece;
    const end = text.indexOf('\n');
    if (end >= 0) socket.end(JSON.stringify(answerTo(relay, text.slice(0, end), stop)));
    else if (text.length > LONGEST_REQUEST) socket.destroy();
  });
}

function main(root: string, name: string): void {
  process.umask(0o077);
  const state = loadState(root, name);
  if (state === undefined) throw new TulleError('not-running', `there is no lab "${name}" in ${root}`);
  const relay = new Relay(state);
  const path = relaySocket(state);
  let stopped = false;
  const stop = (): void => {
    if (stopped) return;
    stopped = true;
    relay.close();
    server.close();
    setTimeout(() => process.exit(0), 50); // time for the answer
  };
  const server = createServer(socket => serve(relay, socket, stop));
  try {
    unlinkSync(path); // of one that was killed; nobody listens on it, because the caller holds the lock
  } catch {
    // none
  }
  server.listen(path);
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, stop);
  // The namespaces may be gone already, and our links with them: there is nothing to give back then.
  setInterval(() => {
    if (!ownerAlive(state)) process.exit(0);
  }, OWNER_CHECK_MS).unref();
}

try {
  main(process.argv[2], process.argv[3]);
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
