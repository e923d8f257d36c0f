/**
 * `tulle migrate check`, without files and terminals: texts in, findings and proposals out.
 *
 *   texts ─► which file is it (input.ts) ─► one check a kind (flags.ts, config.ts, manifest.ts) ─► findings, proposals ─► report
 */
import { TulleError } from '../util/errors.ts';
import { checkCni, checkNetConf, checkSubnetEnv } from './config.ts';
import { type Fields, type Finding, Findings, type Proposal, plain, type Verdict } from './finding.ts';
import { checkArguments, checkVariables } from './flags.ts';
import { type Input, ofFields, recognize } from './input.ts';
import { checkObject } from './manifest.ts';

export interface Text {
  /** How a person calls it: the file's name. */
  name: string;
  text: string;
}

export interface Report {
  findings: Finding[];
  proposal: Proposal;
}

/** Larger is no configuration; it is what a person gave by mistake. */
export const LARGEST_TEXT = 4 * 1024 * 1024;

/**
 * `yaml` reads a text of YAML documents into values; it throws where it is none.
 * @throws TulleError 'unreadable', one line that names the text
 */
export function checkFlannel(texts: readonly Text[], yaml: (text: string) => unknown[]): Report {
  const findings = new Findings();
  const proposal: Proposal = {};
  for (const { name, text } of texts) {
    if (text.length > LARGEST_TEXT) throw unreadable(name, `it has more than ${LARGEST_TEXT / 2 ** 20} MiB`);
    let input = recognize(text);
    if (input.kind === 'other') input = fromYaml(name, text, yaml);
    checkInput(input, { name, text }, findings, proposal);
  }
  return { findings: findings.list, proposal };
}

function fromYaml(name: string, text: string, yaml: (text: string) => unknown[]): Input {
  let values: unknown[];
  try {
    values = yaml(text);
  } catch (error) {
    throw unreadable(name, error instanceof TulleError ? error.message : 'it is neither JSON nor YAML nor flags');
  }
  const inputs = values.map(value => ofFields(value as Fields));
  if (inputs.length === 1 && inputs[0].kind !== 'other') return inputs[0];
  const objects = inputs.flatMap(input => (input.kind === 'objects' ? input.objects : []));
  if (objects.length === 0 || objects.length < inputs.length) {
    throw unreadable(
      name,
      'it is none of: objects of Kubernetes, net-conf, CNI configuration, subnet.env, flags, variables',
    );
  }
  return { kind: 'objects', objects };
}

function checkInput(input: Input, { name, text }: Text, findings: Findings, proposal: Proposal): void {
  switch (input.kind) {
    case 'objects':
      for (const object of input.objects) checkObject(object, name, findings, proposal);
      return;
    case 'net-conf':
      proposal.netConf = checkNetConf(input.fields, name, findings);
      return;
    case 'cni':
      proposal.cni = checkCni(input.fields, name, findings);
      return;
    case 'subnet.env':
      checkSubnetEnv(text, name, findings);
      return;
    case 'words':
      proposal.arguments = checkArguments(input.words, name, findings);
      return;
    case 'variables':
      if (input.words.length > 0) proposal.arguments = checkArguments(input.words, name, findings);
      proposal.variables = checkVariables(input.variables, name, findings);
      return;
    case 'other':
      throw unreadable(name, "it is none of flannel's files");
  }
}

function unreadable(name: string, why: string): TulleError {
  return new TulleError('unreadable', `${plain(name)}: ${plain(why)}`);
}

const SIGNS: Record<Verdict, string> = { carries: '=', differs: '~', change: '!' };
/** Values of these are shown by nobody. */
const SECRETS = /^(-?-etcd-password|FLANNELD_ETCD_PASSWORD)=.*/s;

/** For a terminal. */
export function printReport({ findings, proposal }: Report): string {
  const lines: string[] = [];
  let source = '';
  for (const finding of findings) {
    if (finding.source !== source) lines.push(...(source === '' ? [] : ['']), finding.source);
    source = finding.source;
    lines.push(`  ${SIGNS[finding.verdict]} ${finding.item}: ${finding.text}`);
  }
  const parts: [string, string | undefined][] = [
    ['net-conf.json for tulle', proposal.netConf && shownJson(proposal.netConf)],
    ['cni-conf.json for tulle', proposal.cni && shownJson(proposal.cni)],
    ['flags for tulled', proposal.arguments?.map(word => quoted(plain(hideSecret(word)))).join(' ')],
    ['variables for tulled', proposal.variables?.map(word => plain(hideSecret(word))).join('\n')],
  ];
  for (const [title, text] of parts)
    if (text) lines.push('', `${title}:`, ...text.split('\n').map(line => `  ${line}`));
  const todo = findings.filter(({ verdict }) => verdict === 'change').length;
  const count = (verdict: Verdict): number => findings.filter(finding => finding.verdict === verdict).length;
  lines.push('', `= carries over: ${count('carries')}   ~ differs: ${count('differs')}   ! to do: ${todo}`);
  return `${lines.join('\n')}\n`;
}

/** What a terminal would take for a command is written as JSON writes it. */
const shownJson = (value: Fields): string =>
  JSON.stringify(value, null, 2).replace(
    /[^\P{C}\n]/gu,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

export const hideSecret = (word: string): string => word.replace(SECRETS, '$1=[redacted]');

/** For programs. */
export function jsonReport({ findings, proposal }: Report): object {
  const todo = findings.filter(({ verdict }) => verdict === 'change').length;
  const hidden = {
    ...proposal,
    ...(proposal.arguments && { arguments: proposal.arguments.map(hideSecret) }),
    ...(proposal.variables && { variables: proposal.variables.map(hideSecret) }),
  };
  return { todo, findings, proposal: hidden };
}
