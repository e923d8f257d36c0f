/** CNI's environment variables: SPEC.md section 2 ("Parameters"); CNI_ARGS as libcni's types/args.go reads them. */
import { CNI_ERROR, type CniCommand, CniError } from '../plugin.ts';
import { excerpt } from './fields.ts';

export type Environment = ReadonlyMap<string, string>;

/**
 * What each command cannot do without, in the order in which libcni names what is missing. CNI_PATH is only asked for
 * where the specification does: the reference plugins want it in every command, which a runtime need not give.
 */
const REQUIRED: Readonly<Record<CniCommand | 'VERSION', readonly string[]>> = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME'],
  GC: ['CNI_PATH'],
  STATUS: [],
  VERSION: [],
};

/** The command, when all that it needs is there; else a CniError that names everything that is missing. */
export function commandOf(environment: Environment): CniCommand | 'VERSION' {
  const command = environment.get('CNI_COMMAND') ?? '';
  if (command === '') throw missing(['CNI_COMMAND']);
  if (!Object.hasOwn(REQUIRED, command)) {
    throw new CniError(CNI_ERROR.environment, `unknown CNI_COMMAND: ${command.slice(0, 64)}`);
  }
  const known = command as CniCommand | 'VERSION';
  const absent = REQUIRED[known].filter(name => (environment.get(name) ?? '') === '');
  if (absent.length > 0) throw missing(absent);
  return known;
}

function missing(names: readonly string[]): CniError {
  return new CniError(CNI_ERROR.environment, `required env variables [${names.join(',')}] missing`);
}

/** The keys that tulle-cni itself knows; what kubelet and podman add (K8S_POD_NAME, …) comes with IgnoreUnknown. */
const KNOWN_ARGS = new Set(['IgnoreUnknown', 'IP', 'MAC']);

/** `K=V;K2=V2`. @throws CniError 4 for what is no pair, and for an unknown key without IgnoreUnknown */
export function parseArgs(text: string): Map<string, string> {
  const args = new Map<string, string>();
  if (text === '') return args;
  for (const pair of text.split(';')) {
    const parts = pair.split('=');
    if (parts.length !== 2) throw new CniError(CNI_ERROR.environment, `CNI_ARGS: invalid pair ${excerpt(pair)}`);
    args.set(parts[0], parts[1]);
  }
  const ignore = args.get('IgnoreUnknown');
  if (ignore !== undefined && !/^(1|0|true|false)$/i.test(ignore)) {
    throw new CniError(
      CNI_ERROR.environment,
      `CNI_ARGS: error parsing value of pair ${excerpt(`IgnoreUnknown=${ignore}`)}: it must be 1, 0, true or false`,
    );
  }
  const unknown = [...args].filter(([key]) => !KNOWN_ARGS.has(key));
  if (unknown.length > 0 && !isTrue(ignore)) {
    const pairs = unknown.map(([key, value]) => excerpt(`${key}=${value}`)).join(' ');
    throw new CniError(
      CNI_ERROR.environment,
      `CNI_ARGS: unknown args [${pairs}]: add IgnoreUnknown=1 to pass over them`,
    );
  }
  return args;
}

/** The pairs that can be read, whatever the others are: for DEL. */
export function parseArgsLeniently(text: string): Map<string, string> {
  const pairs = text.split(';').map(pair => pair.split('='));
  return new Map(pairs.filter(pair => pair.length === 2).map(([key, value]) => [key, value]));
}

export function isTrue(text: string | undefined): boolean {
  return text !== undefined && /^(1|true)$/i.test(text);
}

/** CNI_PATH as a list of folders. */
export function parsePath(text: string): string[] {
  return text.split(':').filter(folder => folder !== '');
}
