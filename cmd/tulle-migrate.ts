/** `tulle migrate …`: files in, a report and an exit code out; the rest is lib/migrate. */
import { readFileSync, statSync } from 'node:fs';
import { checkFlannel, jsonReport, LARGEST_TEXT, printReport, type Text } from '../lib/migrate/check.ts';
import { recognize } from '../lib/migrate/input.ts';
import { messageOf, TulleError } from '../lib/util/errors.ts';

export const MIGRATE_HELP = `tulle migrate: what becomes of a configuration of flannel's

usage: tulle migrate check [--json] FILE ...
       tulle migrate check [--json] -- FLAG ...

FILE is any of flannel's: a manifest or what "kubectl get -o yaml" or "-o json" prints, net-conf.json, a CNI configuration,
subnet.env, a unit of systemd, a file of variables, a command line; "-" is the standard input. FLAGs are those of flanneld.

  =  carries over        ~  differs, nothing to do        !  something to do

flags:
  --json    for programs: one JSON value {"todo", "findings", "proposal"}
  --help    print this

exit codes: 0 nothing to do, 1 something to do, 2 something cannot be read, or is not understood

  tulle migrate check kube-flannel.yml
  kubectl get -n kube-flannel configmap,daemonset -o json | tulle migrate check -
  tulle migrate check /etc/cni/net.d/10-flannel.conflist /run/flannel/subnet.env --json
  tulle migrate check -- -etcd-endpoints=http://10.88.0.1:2379 -ip-masq
`;

/** Runs `tulle migrate ARGS`. */
export async function migrate(args: readonly string[]): Promise<number> {
  const end = args.indexOf('--');
  const own = end < 0 ? args : args.slice(0, end);
  const flags = end < 0 ? undefined : args.slice(end + 1);
  if (own.length === 0 || own.some(arg => ['help', '--help', '-h'].includes(arg))) {
    process.stdout.write(MIGRATE_HELP);
    return 0;
  }
  try {
    return await check(own, flags);
  } catch (error) {
    if (!(error instanceof TulleError) || !['unreadable', 'usage'].includes(error.code)) throw error;
    if (own.includes('--json')) process.stdout.write(`${JSON.stringify({ error: error.message })}\n`);
    process.stderr.write(`tulle: ${error.message}\n`);
    return 2;
  }
}

async function check(own: readonly string[], flags: readonly string[] | undefined): Promise<number> {
  const [verb, ...rest] = own;
  if (verb !== 'check') throw usage(`there is no "tulle migrate ${verb}"`);
  const json = rest.includes('--json');
  const files = rest.filter(arg => arg !== '--json');
  const strange = files.find(file => file.startsWith('-') && file !== '-');
  if (strange !== undefined) throw usage(`${strange}: there is no such flag; flags of flanneld come after "--"`);
  if (files.length === 0 && flags === undefined) throw usage('which file?');
  const texts: Text[] = files.map(readText);
  if (flags !== undefined) texts.push({ name: 'flags', text: ['flanneld', ...flags.map(quote)].join(' ') });
  const report = checkFlannel(texts, await yamlReader(texts));
  process.stdout.write(json ? `${JSON.stringify(jsonReport(report))}\n` : printReport(report));
  return report.findings.some(({ verdict }) => verdict === 'change') ? 1 : 0;
}

/** It takes half a second to load, and most files need none. */
async function yamlReader(texts: readonly Text[]): Promise<(text: string) => unknown[]> {
  if (!texts.some(({ text }) => recognize(text).kind === 'other')) return () => [];
  return (await import('../lib/kube/yaml.ts')).readYaml;
}

function readText(name: string): Text {
  try {
    if (name === '-') return { name: 'standard input', text: readFileSync(0, 'utf8') };
    if (statSync(name).size > LARGEST_TEXT) throw new Error('it is too large to be a configuration');
    return { name, text: readFileSync(name, 'utf8') };
  } catch (error) {
    throw new TulleError('unreadable', `${name} cannot be read: ${messageOf(error)}`);
  }
}

const quote = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

const usage = (message: string): TulleError => new TulleError('usage', `${message}: see "tulle migrate --help"`);
