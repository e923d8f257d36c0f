/** The text of `tulled --help`, made from the flag table. */
import { environmentName, type FlagGroup, type FlagSpec, flagGroups, flags } from './flags.ts';

const WIDTH = 118;
const INDENT = 4;

const HEAD = `tulled: the node daemon of tulle. It leases a subnet of the pod network for this node and carries the packets
between this node's pods and those of the other nodes in UDP, through a TUN device.

Usage: tulled [flags]

  tulled -etcd-endpoints=http://10.88.0.1:2379 -iface=eth0
  tulled --registry=file:/var/lib/tulle/leases --node-id=node1
  NODE_NAME=node1 tulled -kube-subnet-mgr -kubeconfig-file=/etc/tulle/kubeconfig

Flags take one dash or two, and their value after "=" or as the next word; a boolean takes it only after "=".
A flag that is not given is read from its environment variable, which stands in brackets.`;

const TAIL = `Exit codes: 0 clean stop, 1 bad configuration, 2 the lease is lost and cannot be had again.`;

export function helpText(): string {
  const sections = (Object.keys(flagGroups) as FlagGroup[]).map(group => {
    const entries = flags.filter(flag => flag.group === group).map(entry);
    return `${flagGroups[group]}:\n\n${entries.join('\n\n')}`;
  });
  return `${[HEAD, ...sections, TAIL].join('\n\n')}\n`;
}

function entry(flag: FlagSpec & { name: string }): string {
  const head = `  -${flag.name}${flag.value === '' ? '' : ` ${flag.value}`}`;
  const notes = [flag.help, defaultNote(flag)].filter(text => text !== '').join(' ');
  const variable = flag.name === 'help' || flag.name === 'version' ? '' : ` [${environmentName(flag)}]`;
  const lines = [head + variable, ...wrap(notes)];
  if (flag.unsupported !== undefined) lines.push(...wrap(`Not supported yet: ${flag.unsupported}.`));
  lines.push(`${' '.repeat(INDENT)}Example: ${flag.example}`);
  return lines.join('\n');
}

function defaultNote(flag: FlagSpec): string {
  if (flag.kind === 'duration') return `(default ${durationText(flag.default)})`;
  if (flag.kind === 'repeatable' || flag.default === '' || flag.default === false) return '';
  return `(default ${flag.default})`;
}

function durationText(ms: number): string {
  return ms % 3_600_000 === 0 ? `${ms / 3_600_000}h` : `${ms / 1_000}s`;
}

/** Breaks at spaces so that each line, with its indentation, fits. */
function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && INDENT + line.length + 1 + word.length > WIDTH) {
      lines.push(' '.repeat(INDENT) + line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(' '.repeat(INDENT) + line);
  return lines;
}
