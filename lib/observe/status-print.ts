/** The status document for a person: what is wrong first, then the lease, the registry, the peers, what was dropped. */
import { DROP_REASONS } from '../datapath/counters.ts';
import { formatTable } from './lease-rows.ts';
import { printable } from './printable.ts';
import type { StatusDocument } from './status.ts';

/** The screen of `tulle status`. */
export function printStatus(status: StatusDocument): string {
  const blocks = [
    head(status),
    facts(status),
    peerTable(status),
    rateLines(status),
    dropLines(status),
    offloadLines(status),
  ];
  return printable(blocks.filter(part => part !== '').join('\n'));
}

function head({ node, version, uptimeSeconds, healthy, mode, problems }: StatusDocument): string {
  const what = mode === 'cni-only' ? 'serves CNI only, ' : '';
  const lines = [
    `${node ?? 'this node'}: ${what}${healthy ? 'healthy' : 'NOT HEALTHY'}  (tulled ${version}, up ${duration(uptimeSeconds)})`,
    ...problems.map(({ severity, text }) => `  ${severity === 'error' ? '!' : '~'} ${text}`),
  ];
  return `${lines.join('\n')}\n`;
}

function facts(status: StatusDocument): string {
  const { network, lease, registry, overlay, rules, cni } = status;
  const rows: [name: string, text: string][] = [];
  if (network !== null) {
    const both = network.network6 === undefined ? network.network : `${network.network} ${network.network6}`;
    rows.push(['network', `${both}, backend ${network.backend}`]);
  }
  if (status.mode !== 'cni-only') {
    rows.push(['lease', leaseText(lease, registry.kind)]);
    const place =
      registry.endpoints.length > 0 ? `${registry.where} at ${registry.endpoints.join(' ')}` : registry.where;
    const health = registry.healthy ? 'well' : `not well for ${duration(registry.unhealthySeconds ?? 0)}`;
    rows.push(['registry', `${place ?? 'not open yet'}, ${health}`]);
  }
  if (overlay !== null) {
    const path = overlay.running ? '' : ', its data path is being made again';
    rows.push([
      'device',
      `${overlay.device}, MTU ${overlay.mtu}, port ${overlay.port}, --transport=${overlay.transport}${path}`,
    ]);
  }
  if (rules !== null) rows.push(['rules', rulesText(rules)]);
  if (cni !== null) rows.push(['cni', cniText(cni)]);
  return rows.map(([name, text]) => `${name.padEnd(9)} ${text}\n`).join('');
}

function leaseText(lease: StatusDocument['lease'], registry: string | null): string {
  if (lease.subnet === null) return 'none yet';
  const subnets = lease.subnet6 === null ? lease.subnet : `${lease.subnet} ${lease.subnet6}`;
  const name = `${subnets} at ${lease.publicIp}, key ${lease.key}`;
  if (lease.reservation && !lease.fenced)
    return `${name}, ${registry === 'kube' ? "this Node's pod CIDR" : 'a reservation'}: it does not end`;
  const renewed = `renewed ${duration(lease.renewedSecondsAgo ?? 0)} ago`;
  if (lease.fenced) return `${name}, FENCED: ${renewed}, which is too long; nothing is forwarded`;
  return `${name}, ${renewed}, ${duration(lease.secondsLeft ?? 0)} left`;
}

function rulesText({ masquerade, forward }: NonNullable<StatusDocument['rules']>): string {
  const how = { off: 'off', none: 'wanted, but there is no tool for it' }[masquerade] ?? `by ${masquerade}`;
  return `masquerade ${how}, forwarding ${{ off: 'not ours', unneeded: 'needs no rule' }[forward] ?? `accepted by ${forward}`}`;
}

function cniText({ calls, running, waiting }: NonNullable<StatusDocument['cni']>): string {
  const each = Object.entries(calls).map(([command, results]) => {
    const failed = Object.entries(results).filter(([code]) => code !== 'ok');
    const bad = failed.map(([code, count]) => `${count} with code ${code}`).join(', ');
    return `${command} ${results['ok'] ?? 0}${bad === '' ? '' : ` (and ${bad})`}`;
  });
  const now = running + waiting > 0 ? `, ${running} running, ${waiting} waiting` : '';
  return `${each.length === 0 ? 'not asked yet' : each.join(', ')}${now}`;
}

function peerTable({ peers }: StatusDocument): string {
  if (peers.length === 0) return '';
  const rows = peers.map(peer => [
    peer.subnet6 === undefined ? peer.subnet : `${peer.subnet} ${peer.subnet6}`,
    peer.node ?? '-',
    peer.endpoint,
    peer.format,
    peer.silent ? 'SILENT' : peer.lastHeardMs === null ? '-' : `${duration(peer.lastHeardMs / 1000)} ago`,
    peer.rttMs === null ? '-' : `${number(peer.rttMs)} ms`,
    peer.lossPct === null ? '-' : `${number(peer.lossPct)} %`,
    String(peer.pathMtu),
  ]);
  return `${formatTable(['PEER', 'NODE', 'ENDPOINT', 'FORMAT', 'HEARD', 'ROUND TRIP', 'LOSS', 'PATH MTU'], rows)}`;
}

function rateLines({ rates }: StatusDocument): string {
  if (rates === null) return '';
  const line = (name: string, way: 'egress' | 'ingress'): string => {
    const of = (what: string): number => rates[`${way}-${what}`] ?? 0;
    return `${name.padEnd(9)} ${bits(of('bytes') * 8)}, ${number(of('packets'))} packets/s in ${number(of('datagrams'))} datagrams/s\n`;
  };
  return `${line('out', 'egress')}${line('in', 'ingress')}`;
}

function dropLines({ drops, rates }: StatusDocument): string {
  const dropped = Object.entries(drops).filter(([, count]) => count > 0);
  if (dropped.length === 0) return '';
  const sentences: Readonly<Record<string, string>> = DROP_REASONS;
  const rows = dropped.map(([reason, count]) => {
    const rate = rates?.[reason] ?? 0;
    return [String(count), rate > 0 ? `${number(rate)}/s` : '', reason, sentences[reason] ?? ''];
  });
  return `${formatTable(['DROPPED', 'NOW', 'REASON', ''], rows)}`;
}

function offloadLines({ offloads }: StatusDocument): string {
  const entries = Object.entries(offloads);
  if (entries.length === 0) return '';
  const on = entries.filter(([, state]) => state.on).map(([name]) => name);
  const off = entries.filter(([, state]) => !state.on);
  const reasons = new Map<string, string[]>();
  for (const [name, { why }] of off) reasons.set(why, [...(reasons.get(why) ?? []), name]);
  const lines = [...reasons].map(([why, names]) => `${' '.repeat(9)} off: ${names.join(', ')} (${why})\n`);
  return `${'offloads'.padEnd(9)} ${on.length === 0 ? 'none' : on.join(', ')}\n${lines.join('')}`;
}

/** Three figures at most, without zeros that say nothing. */
function number(value: number): string {
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return String(Number(value.toFixed(value >= 10 ? 1 : 2)));
}

function bits(perSecond: number): string {
  const units = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'];
  let value = perSecond;
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${number(value)} ${units[unit]}`;
}

/** "42 s", "3 min 20 s", "5 h 2 min", "12 d 3 h". */
export function duration(seconds: number): string {
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return parts(Math.floor(whole / 60), 'min', whole % 60, 's');
  if (whole < 86_400) return parts(Math.floor(whole / 3600), 'h', Math.floor((whole % 3600) / 60), 'min');
  return parts(Math.floor(whole / 86_400), 'd', Math.floor((whole % 86_400) / 3600), 'h');
}

const parts = (a: number, unitA: string, b: number, unitB: string): string =>
  b === 0 ? `${a} ${unitA}` : `${a} ${unitA} ${b} ${unitB}`;
