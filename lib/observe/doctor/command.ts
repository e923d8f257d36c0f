/** `tulle doctor`: looks, judges, prints. Which flags there are is the program's matter (cmd/tulle-doctor.ts). */
import type { InterfaceOptions } from '../../host/interface.ts';
import { codeOf, messageOf } from '../../util/errors.ts';
import { askControl } from '../control-client.ts';
import { printable } from '../printable.ts';
import type { StatusDocument } from '../status.ts';
import { diagnoseMachine } from './diagnose.ts';
import type { MachineFacts } from './facts.ts';
import { CHECKS, type Check, type Finding, finding, type Severity } from './finding.ts';
import { gatherFacts } from './gather.ts';
import { diagnosePeers, lookAtPeers, type PeerInput } from './peers.ts';

export interface DoctorOptions {
  socket: string;
  interface: InterfaceOptions;
  json: boolean;
  /** Who is in the registry, for where no daemon runs; undefined: nobody said which registry. */
  peersOf: (() => Promise<PeerInput[]>) | undefined;
  out(text: string): void;
}

export interface DoctorReport {
  healthy: boolean;
  findings: readonly Finding[];
  /** Checks without any finding. */
  well: readonly Check[];
  /** Checks that need what is not there: root, a namespace of one's own. */
  untried: readonly Check[];
  facts: MachineFacts;
}

/** flannel's default, and tulle's (lib/backend/backend.ts). */
const DEFAULT_PORT = 8285;
const SEVERITIES: readonly Severity[] = ['error', 'warning', 'note'];

/** The exit code: 1 when there is an error among the findings. */
export async function runDoctor(options: DoctorOptions): Promise<number> {
  const report = await examine(options);
  options.out(options.json ? `${JSON.stringify(report)}\n` : printReport(report));
  return report.healthy ? 0 : 1;
}

async function examine({ socket, interface: wanted, peersOf }: DoctorOptions): Promise<DoctorReport> {
  const { status, denied } = await statusOf(socket);
  const facts = await gatherFacts({
    interface: wanted,
    dataPort: status?.overlay?.port ?? DEFAULT_PORT,
    network: status?.network?.network,
    device: status?.overlay?.device,
    daemonPid: status?.pid,
  });
  const findings = [...diagnoseMachine(facts, status, denied), ...(await peerFindings(facts, status, peersOf))];
  findings.sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
  // A device was opened at most, and nothing was made.
  const untried: Check[] = facts.namespace.ok ? [] : ['tun', 'udp', 'links', 'rules'];
  const ill = new Set(findings.map(({ check }) => check));
  return {
    healthy: findings.every(({ severity }) => severity !== 'error'),
    findings,
    well: (Object.keys(CHECKS) as Check[]).filter(check => !ill.has(check) && !untried.includes(check)),
    untried: untried.filter(check => !ill.has(check)),
    facts,
  };
}

/** Without a status none answers, for whatever reason, or we may not ask; each is a finding of its own. */
async function statusOf(socket: string): Promise<{ status?: StatusDocument; denied?: string }> {
  try {
    return { status: (await askControl(socket, { path: '/status' })) as StatusDocument };
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return codeOf(error) === 'no-permission' ? { denied: messageOf(error) } : {};
  }
}

async function peerFindings(
  { underlay }: MachineFacts,
  status: StatusDocument | undefined,
  peersOf: DoctorOptions['peersOf'],
): Promise<Finding[]> {
  const measured = status?.overlay != null;
  let peers: readonly PeerInput[];
  try {
    peers = measured ? status.peers : ((await peersOf?.()) ?? []);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return [finding('registry-unreachable', `the registry cannot be read: ${messageOf(error)}`)];
  }
  if (peers.length === 0) return [finding('no-peers', 'no other node is known')];
  const mtu = 'mtu' in underlay ? underlay.mtu : undefined;
  const { looks, notes } = await lookAtPeers(peers, mtu, measured);
  return [...diagnosePeers(looks, mtu, measured), ...notes];
}

const SIGNS: Readonly<Record<Severity, string>> = { error: 'ERROR', warning: 'warning', note: 'note' };

export function printReport({ findings, well, untried, healthy }: DoctorReport): string {
  const lines = findings.map(
    ({ code, severity, text, advice }) => `${SIGNS[severity].padEnd(7)}  ${text}  [${code}]\n         ${advice}\n`,
  );
  const fine = well.map(check => `ok       ${CHECKS[check]}\n`);
  const open = untried.map(check => `untried  ${CHECKS[check]}\n`);
  const count = findings.filter(({ severity }) => severity === 'error').length;
  const end = healthy ? 'nothing here keeps an overlay from working' : `${count} to mend; docs/doctor.md explains each`;
  return printable(`${[...lines, ...fine, ...open].join('')}${end}\n`);
}
