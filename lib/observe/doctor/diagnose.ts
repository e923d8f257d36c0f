/** From facts to findings: pure, so that every finding can be tested on any machine. */
import type { StatusDocument } from '../status.ts';
import type { MachineFacts, Trial } from './facts.ts';
import { type Finding, type FindingCode, finding } from './finding.ts';

const OLDEST_NODE = 20;
/** Bytes that the tulle backend adds over IPv4 (lib/backend/backend.ts: overheadOf). */
const OVERHEAD = 40;
const LEAST_IP4 = 576;
/** A clock before this program was written is wrong. */
const EARLIEST_MS = Date.UTC(2025, 0, 1);
const LATEST_MS = Date.UTC(2100, 0, 1);
/** NTP slews by 500 ppm at most, so a longer step within the short look is a jump. */
const JUMP_MS = 50;

/** All that is to be said of this machine. `status`: of the running tulled, if there is one; `denied`: why it may not be asked. */
export function diagnoseMachine(facts: MachineFacts, status: StatusDocument | undefined, denied?: string): Finding[] {
  return [
    ...diagnoseBasics(facts),
    ...diagnoseTun(facts),
    ...failed('udp-trains-missing', facts.udpTrain, 'the kernel refuses a train of datagrams (UDP_SEGMENT)'),
    ...failed('udp-gro-missing', facts.udpGro, 'the kernel does not hand over trains (UDP_GRO)'),
    ...failed('veth-missing', facts.veth, 'no veth pair can be made'),
    ...failed('bridge-missing', facts.bridge, 'no bridge can be made'),
    ...diagnoseBridge(facts),
    ...diagnoseRules(facts),
    ...diagnoseRouting(facts, status),
    ...diagnoseMtu(facts, status),
    ...diagnosePort(facts),
    ...diagnoseClock(facts),
    ...diagnoseOthers(facts),
    ...diagnoseDaemon(status, denied),
  ];
}

function failed(code: FindingCode, trial: Trial | undefined, text: string): Finding[] {
  return trial === undefined || trial.ok ? [] : [finding(code, `${text}: ${trial.message}`)];
}

function diagnoseBasics({ nodeVersion, isRoot, namespace, userNamespacesOff }: MachineFacts): Finding[] {
  const found: Finding[] = [];
  const major = Number(nodeVersion.split('.')[0]);
  if (!(major >= OLDEST_NODE)) found.push(finding('node-too-old', `this is Node.js ${nodeVersion}`));
  if (!isRoot) found.push(finding('not-root', 'not everything was tried: this is not root'));
  else found.push(...failed('no-namespaces', namespace, 'no network namespace can be made'));
  if (userNamespacesOff !== undefined)
    found.push(finding('user-namespaces-off', `users cannot make user namespaces: ${userNamespacesOff}`));
  return found;
}

function diagnoseTun({ tun, offloads }: MachineFacts): Finding[] {
  if (tun !== undefined && !tun.ok) {
    const denied = ['EPERM', 'EACCES'].includes(tun.code);
    return [finding(denied ? 'tun-denied' : 'tun-missing', `no TUN device can be opened: ${tun.message}`)];
  }
  const missing = Object.entries(offloads ?? {}).flatMap(([name, works]) => (works ? [] : [name]));
  if (missing.length === 0) return [];
  return [finding('offload-missing', `the TUN driver of this kernel lacks ${missing.join(', ')}`)];
}

function diagnoseBridge({ bridge, bridgeNetfilter }: MachineFacts): Finding[] {
  if (bridgeNetfilter === true || bridge?.ok === false) return [];
  const effect = "a Service does not reach the pods of its client's own node";
  return bridgeNetfilter === undefined
    ? [finding('bridge-netfilter-missing', `br_netfilter is not loaded: on a bridge ${effect}`)]
    : [finding('bridge-netfilter-off', `net.bridge.bridge-nf-call-iptables is 0: on a bridge ${effect}`)];
}

function diagnoseRules({ isRoot, nftables, iptables }: MachineFacts): Finding[] {
  if (!isRoot) return [];
  if (!nftables && !iptables) return [finding('no-rule-tool', 'neither nft nor iptables works here')];
  return nftables ? [] : [finding('nftables-missing', 'nft does not work here')];
}

function diagnoseRouting(
  { ipForward, rpFilter, underlay }: MachineFacts,
  status: StatusDocument | undefined,
): Finding[] {
  const found: Finding[] = [];
  const carries = status?.overlay != null;
  if (ipForward === false && carries)
    found.push(finding('forwarding-lost', 'net.ipv4.ip_forward is 0 although tulled runs: pods reach nobody'));
  else if (ipForward === false) found.push(finding('forwarding-off', 'net.ipv4.ip_forward is 0'));
  if (rpFilter === 1 && 'name' in underlay)
    found.push(finding('rp-filter-strict', `rp_filter of ${underlay.name} is strict (1)`));
  return found;
}

function diagnoseMtu({ underlay }: MachineFacts, status: StatusDocument | undefined): Finding[] {
  if ('error' in underlay) return [finding('no-underlay', underlay.error)];
  const { name, mtu, up } = underlay;
  const found: Finding[] = [];
  if (!up) found.push(finding('underlay-down', `the link ${name} is down`));
  const room = mtu - OVERHEAD;
  if (room < LEAST_IP4) found.push(finding('mtu-too-small', `${name} has an MTU of ${mtu}, which leaves pods ${room}`));
  else if (mtu < 1500) {
    found.push(finding('mtu-below-1500', `${name} has an MTU of ${mtu}: pods get ${room} (${OVERHEAD} are ours)`));
  }
  const overlay = status?.overlay;
  // Flannel's format has 28 bytes around each packet, so at least these must fit.
  if (overlay != null && overlay.mtu + 28 > mtu)
    found.push(finding('overlay-mtu-too-big', `${overlay.device} has ${overlay.mtu}, ${name} has ${mtu}`));
  return found;
}

function diagnosePort({ isRoot, dataPort, portHolders }: MachineFacts): Finding[] {
  return portHolders.map(({ address, port, pid, name }) => {
    // Whose sockets are whose is root's to see: this may well be our own tulled.
    if (pid === undefined && !isRoot)
      return finding('port-held', `somebody listens on ${address} port ${port}/udp; who that is only root can see`);
    const who = pid === undefined ? 'somebody' : `${name ?? 'a process'} (${pid})`;
    return finding('port-taken', `${who} listens on ${address} port ${port}/udp, the data port ${dataPort} of tulle`);
  });
}

function diagnoseClock({ clock: { nowMs, jumpMs, synchronised } }: MachineFacts): Finding[] {
  const found: Finding[] = [];
  if (nowMs < EARLIEST_MS || nowMs > LATEST_MS)
    found.push(finding('clock-wrong', `the clock says ${new Date(nowMs).toISOString()}`));
  if (Math.abs(jumpMs) > JUMP_MS)
    found.push(finding('clock-jumps', `the wall clock moved by ${Math.round(jumpMs)} ms against the monotonic one`));
  if (synchronised === false) found.push(finding('clock-unsynchronised', 'the kernel calls its clock unsynchronised'));
  return found;
}

function diagnoseOthers({ foreignLinks, conflicts }: MachineFacts): Finding[] {
  return [
    ...foreignLinks.map(({ name, of }) => finding('overlay-remains', `there is a link ${name}, of ${of}`)),
    ...conflicts.map(route => finding('route-conflict', `a route leads into the pod network: ${route}`)),
  ];
}

function diagnoseDaemon(status: StatusDocument | undefined, denied: string | undefined): Finding[] {
  if (denied !== undefined) return [finding('daemon-denied', denied)];
  if (status === undefined) return [finding('no-daemon', 'no tulled answers here')];
  return status.problems
    .filter(({ severity }) => severity === 'error')
    .map(({ text }) => finding('daemon-unwell', `tulled: ${text}`));
}
