/**
 * The underlay to every peer. With a running tulled its probes have measured it already, on the data socket: reachability,
 * loss and path MTU. Without one nobody can prove a peer's port open, since a peer listens only to leaseholders' endpoints;
 * what can be had is whether the machine refuses, and what the kernel learns of the path from a datagram with DF.
 */
import { createSocket } from 'node:dgram';
import { setTimeout as delay } from 'node:timers/promises';
import { withRtnetlink } from '../../netlink/netlink.ts';
import { codeOf, messageOf } from '../../util/errors.ts';
import { parseAddress4 } from '../../wire/ip4.ts';
import type { PeerStatus } from '../status.ts';
import { type EchoResult, echo } from './echo.ts';
import { type Finding, finding } from './finding.ts';

/** A peer to look at; the measured values are there with a running daemon. */
export type PeerInput = Pick<PeerStatus, 'subnet' | 'node' | 'endpoint' | 'format'> &
  Partial<Pick<PeerStatus, 'rttMs' | 'lossPct' | 'lastHeardMs' | 'pathMtu' | 'silent'>>;

export interface PeerLook {
  peer: PeerInput;
  /** Whether it answered an ICMP echo; undefined: not tried. */
  echoed: boolean | undefined;
  /** What our own datagram met; only without a daemon. */
  knock: { kind: 'quiet' } | { kind: 'refused' } | { kind: 'failed'; message: string } | undefined;
  /** What the kernel believes of the path, bytes; only without a daemon. */
  learntMtu: number | undefined;
}

/** More are not looked at one by one: their status says what is known of them. */
const MOST_PEERS = 256;
const WAIT_MS = 700;
/** The loss that people notice. */
const LOSSY_PCT = 2;

/** Pure: what is to be said of these looks. `mtu`: of the underlay's link, if it is known. */
export function diagnosePeers(looks: readonly PeerLook[], mtu: number | undefined, measured: boolean): Finding[] {
  const found = looks.flatMap(look => diagnosePeer(look, mtu, measured));
  if (!measured && looks.some(({ knock }) => knock?.kind === 'quiet')) {
    const text = 'without a running tulled nobody can tell whether the peers would answer on the data port';
    found.push(finding('peer-unprovable', text));
  }
  return found;
}

function diagnosePeer(look: PeerLook, mtu: number | undefined, measured: boolean): Finding[] {
  const { peer, echoed, knock, learntMtu } = look;
  const who = `${peer.node ?? peer.subnet} at ${peer.endpoint}`;
  if (knock?.kind === 'refused')
    return [finding('peer-port-closed', `${who}: the machine is there, nobody listens on the data port`)];
  if (knock?.kind === 'failed') return [finding('peer-unreachable', `${who}: ${knock.message}`)];
  if (peer.silent === true) {
    return echoed === false
      ? [finding('peer-unreachable', `${who} answers neither probes nor ICMP echo`)]
      : [finding('peer-silent', `${who} does not answer probes${echoed === true ? ', but ICMP echo' : ''}`)];
  }
  const found: Finding[] = [];
  const loss = peer.lossPct ?? 0;
  if (loss >= LOSSY_PCT) found.push(finding('peer-lossy', `${who}: ${Math.round(loss)} % of the probes are lost`));
  const width = measured ? peer.pathMtu : learntMtu;
  if (width !== undefined && mtu !== undefined && width > 0 && width < mtu)
    found.push(finding('path-narrow', `${who}: the path takes ${width} bytes, our link ${mtu}`));
  if (echoed === false && !measured) found.push(finding('no-echo', `${who} does not answer ICMP echo`));
  return found;
}

/** Looks at all of them at once. `mtu`: the longest datagram to try, as an IP packet. */
export async function lookAtPeers(
  peers: readonly PeerInput[],
  mtu: number | undefined,
  measured: boolean,
): Promise<{ looks: PeerLook[]; notes: Finding[] }> {
  const some = peers.slice(0, MOST_PEERS);
  const { result, notes } = await echoAll(some);
  const looks = await Promise.all(
    some.map(async peer => {
      const { host } = split(peer.endpoint);
      const echoed = parseAddress4(host) === undefined ? undefined : result?.answered.has(host);
      if (measured) return { peer, echoed, knock: undefined, learntMtu: undefined };
      return { peer, echoed, knock: await knockAt(peer.endpoint, mtu), learntMtu: pathMtuTo(host) };
    }),
  );
  return { looks, notes };
}

async function echoAll(peers: readonly PeerInput[]): Promise<{ result: EchoResult | undefined; notes: Finding[] }> {
  const addresses = peers.map(({ endpoint }) => split(endpoint).host).filter(host => parseAddress4(host) !== undefined);
  if (addresses.length === 0) return { result: undefined, notes: [] };
  try {
    return { result: await echo(addresses), notes: [] };
  } catch (error) {
    return { result: undefined, notes: [finding('echo-untried', `ICMP echo was not tried: ${messageOf(error)}`)] };
  }
}

/** "10.88.0.2:8285" or "[fd00::2]:8285". */
function split(endpoint: string): { host: string; port: number } {
  const at = endpoint.lastIndexOf(':');
  return { host: endpoint.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(endpoint.slice(at + 1)) };
}

/**
 * Sends datagrams from a socket of our own to the data port, the first as long as the link allows: routers that cannot
 * take it say so to the kernel. The peer drops and counts them as those of an unknown sender.
 */
async function knockAt(endpoint: string, mtu: number | undefined): Promise<PeerLook['knock']> {
  const { host, port } = split(endpoint);
  const six = host.includes(':');
  const socket = createSocket(six ? 'udp6' : 'udp4');
  let failure: unknown;
  socket.on('error', error => {
    failure = error;
  });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.connect(port, host, resolve);
    });
    const longest = Math.max(32, (mtu ?? 1280) - (six ? 48 : 28));
    for (const bytes of [longest, 32, 32]) {
      // Linux sets DF on UDP by itself (ip-sysctl.rst: ip_no_pmtu_disc = 0) up to the path MTU that it believes in.
      socket.send(new Uint8Array(bytes), error => {
        if (error != null && codeOf(error) !== 'EMSGSIZE') failure = error;
      });
      await delay(WAIT_MS / 3);
      if (failure !== undefined) break;
    }
  } catch (error) {
    failure = error;
  } finally {
    socket.close();
  }
  if (failure === undefined) return { kind: 'quiet' };
  if (codeOf(failure) === 'ECONNREFUSED') return { kind: 'refused' };
  return { kind: 'failed', message: messageOf(failure) };
}

/** The path MTU that the kernel has learnt, if it has. */
function pathMtuTo(host: string): number | undefined {
  try {
    return withRtnetlink(undefined, netlink => netlink.routeTo(host).mtu);
  } catch {
    return undefined;
  }
}
