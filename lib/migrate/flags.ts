/** flanneld's flags and variables, each as tulled takes it. */
import { environmentName, type FlagName, flags, flagTable } from '../daemon/flags.ts';
import { parseFlags } from '../daemon/parse-flags.ts';
import { codeOf, messageOf } from '../util/errors.ts';
import type { Finding, Findings } from './finding.ts';

const ofFlannel = flags.filter(flag => flag.origin === 'flannel');

/** Good to know about a flag that carries over. */
const NOTES: Partial<Record<FlagName, string>> = {
  'ip-masq':
    "the same packets are masqueraded, by rules of tulle's own; those that flanneld left behind go at a reboot",
  'iptables-forward-rules': "the same packets are accepted, by rules of tulle's own",
  v: 'levels are others: 0 what matters, 1 every step, 2 also stacks',
  'healthz-ip': 'the same paths, /healthz and /readyz',
};

/** Variables of flanneld that are no flags. */
const VARIABLES: Record<string, [Finding['verdict'], string]> = {
  NODE_NAME: ['carries', 'the name of the node, read as flanneld does'],
  POD_NAME: ['carries', 'read where NODE_NAME is missing; it needs the permission "get pods", so NODE_NAME is better'],
  POD_NAMESPACE: ['carries', 'read together with POD_NAME'],
  EVENT_QUEUE_DEPTH: ['differs', 'there is no such queue here: nothing is lost when many nodes change at once'],
  CONT_WHEN_CACHE_NOT_READY: ['differs', 'not read: tulled waits for the API server as long as it takes'],
  WIREGUARD_KEY_FILE: ['change', 'there is no encryption here; keep flannel, or encrypt the underlay'],
  ACCESS_KEY_ID: ['change', 'of the backend tencent-vpc, which is not here'],
  ACCESS_KEY_SECRET: ['change', 'of the backend tencent-vpc, which is not here'],
  NOTIFY_SOCKET: ['carries', 'READY=1 is sent when the node is ready'],
};

/** The words after "flanneld". Returns the words to give to tulled. */
export function checkArguments(words: readonly string[], source: string, findings: Findings): string[] {
  const say = findings.at(source);
  const kept: string[] = [];
  for (let index = 0; index < words.length; index++) {
    const word = words[index];
    const match = /^--?([^-=][^=]*)(?:=(.*))?$/s.exec(word);
    if (match === null) {
      say(
        'change',
        word.startsWith('-') ? word : 'a word',
        'it is no flag; flanneld passes over it and all that follows, tulled refuses it',
      );
      continue;
    }
    const [, name, given] = match;
    const spec = ofFlannel.find(flag => flag.name === name);
    if (spec === undefined) {
      say(
        'change',
        `-${name}`,
        LOG_FLAGS.has(name)
          ? 'a flag of an older log library; leave it out'
          : 'no flag of flanneld or tulled; leave it out',
      );
      // Its value may be the next word; nothing of it is shown, it may be a secret.
      if (given === undefined && words[index + 1]?.startsWith('-') === false) index++;
      continue;
    }
    const value = given ?? (spec.kind === 'boolean' ? 'true' : words[++index]);
    if (checkFlag(spec.name, value, `-${name}`, say)) kept.push(`-${name}=${value}`);
  }
  return kept;
}

const LOG_FLAGS = new Set(['logtostderr', 'alsologtostderr', 'stderrthreshold', 'log_dir', 'log_file', 'skip_headers']);

/** Variables of a unit, of an environment file or of a container. Returns the lines to give to tulled. */
export function checkVariables(variables: ReadonlyMap<string, string>, source: string, findings: Findings): string[] {
  const say = findings.at(source);
  const kept: string[] = [];
  for (const [name, value] of variables) {
    const special = Object.hasOwn(VARIABLES, name) ? VARIABLES[name] : undefined;
    const spec = ofFlannel.find(flag => environmentName(flag) === name);
    if (special !== undefined) {
      say(special[0], name, special[1]);
      if (special[0] === 'carries') kept.push(`${name}=${value}`);
    } else if (spec !== undefined) {
      if (checkFlag(spec.name, value, name, say)) kept.push(`${name}=${value}`);
    } else if (name.startsWith('FLANNELD_')) {
      say('change', name, 'it belongs to no flag of flanneld or tulled; leave it out');
    }
  }
  return kept;
}

/** Whether it is to be given to tulled, too. */
function checkFlag(name: FlagName, value: string | undefined, item: string, say: ReturnType<Findings['at']>): boolean {
  try {
    parseFlags(value === undefined ? [`-${name}`] : [`-${name}=${value}`], {});
  } catch (error) {
    const reason = messageOf(error).replace(/^-[\w-]+: /, '');
    say('change', item, codeOf(error) === 'unsupported' ? reason : `tulled does not take it: ${reason}`);
    return false;
  }
  const { unsupported } = flagTable[name] as { unsupported?: string };
  if (unsupported !== undefined) {
    say('differs', item, 'with this value it changes nothing; tulled knows it only so, leave it out');
    return false;
  }
  say(name === 'v' ? 'differs' : 'carries', item, NOTES[name] ?? 'the same name, the same meaning');
  return true;
}
