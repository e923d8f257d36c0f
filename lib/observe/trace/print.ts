/** A story for a person: one block a step, what it means indented below. */

import { explainReason } from './steps.ts';
import type { Story, Verdict } from './story.ts';

const SIGNS: Record<Verdict, string> = { pass: '✓', stop: '✗', open: '?' };
const NAMES = {
  packet: 'packet',
  kernel: 'kernel',
  fence: 'lease',
  lookup: 'route',
  ttl: 'ttl',
  peer: 'peer',
  width: 'width',
  outer: 'outer',
  send: 'send',
  far: 'arrival',
  answer: 'answer',
} as const;

export function printStory(story: Story): string {
  const { steps } = story;
  const nodeWidth = Math.max(...steps.map(step => step.node.length));
  const text = steps.map(({ name, node, verdict, title, lines }) => {
    const head = `${SIGNS[verdict]} ${node.padEnd(nodeWidth)}  ${NAMES[name].padEnd(7)}  ${title}`;
    const indent = ' '.repeat(nodeWidth + 13);
    return [head, ...lines.map(line => indent + line)].join('\n');
  });
  return `${text.join('\n')}\n\n${verdictOf(story)}\n`;
}

function verdictOf({ outcome, sent, where, reason }: Story): string {
  const explained = sent ? '' : ' (explained, not sent)';
  if (outcome === 'delivered') return `delivered${explained}`;
  if (outcome === 'unknown') return `nobody can tell whether it arrived${explained}`;
  const place = where === 'here' ? 'on this node' : where === 'there' ? 'on the far node' : 'on the way';
  return `stopped ${place}: ${reason === undefined ? 'nobody knows why' : `${reason}: ${explainReason(reason)}`}${explained}`;
}
