/** `tulle cni …`: arguments in, exit code out. */
import { parseArgs } from 'node:util';
import { LONGEST_SOCKET_PATH } from '../host/unix-socket.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { DEFAULT_BIN_DIRECTORY, DEFAULT_CONF_DIRECTORY, type InstallOptions, install, uninstall } from './install.ts';

export const CNI_HELP = `tulle cni: the CNI plugin on this machine

usage: tulle cni install [OPTION ...]     put the plugin and its configuration where container runtimes look
       tulle cni uninstall [OPTION ...]   remove both

options:
  --bin-dir DIR      where the runtime looks for plugins (default ${DEFAULT_BIN_DIRECTORY})
  --conf-dir DIR     where it looks for configurations (default ${DEFAULT_CONF_DIRECTORY})
  --socket PATH      tulled's --cni-socket, where it is not the default
  --name NAME        the network's name in the configuration (default tulle)
  --config FILE      install this configuration instead of making one: a conflist with a plugin of type tulle-cni
  --portmap          chain the reference plugin portmap, for host ports; it must be in --bin-dir
  --force            replace or remove a configuration that somebody changed
  --help             print this

Example: tulle cni install --bin-dir /usr/lib/cni --portmap
         tulle cni install --config /etc/tulle/cni-conf.json --force
`;

const OPTIONS = {
  'bin-dir': { type: 'string', default: DEFAULT_BIN_DIRECTORY },
  'conf-dir': { type: 'string', default: DEFAULT_CONF_DIRECTORY },
  socket: { type: 'string' },
  name: { type: 'string' },
  config: { type: 'string' },
  portmap: { type: 'boolean' },
  force: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** Runs `tulle cni ARGS`. @throws TulleError 'usage' or 'install' */
export async function cni(args: readonly string[]): Promise<number> {
  const { verb, values } = parse(args);
  if (values.help === true || verb === undefined || verb === 'help') {
    process.stdout.write(CNI_HELP);
    return 0;
  }
  const options: InstallOptions = {
    binDirectory: filled('bin-dir', values['bin-dir']),
    confDirectory: filled('conf-dir', values['conf-dir']),
    ...(values.socket !== undefined && { socket: socketOption(values.socket) }),
    ...(values.name !== undefined && { name: nameOption(values.name) }),
    ...(values.config !== undefined && { config: configOption(values) }),
    portmap: values.portmap === true,
    force: values.force === true,
  };
  switch (verb) {
    case 'install': {
      const { program, conflist, kind } = install(options);
      process.stdout.write(`${program} (${kind})\n${conflist}\n`);
      return 0;
    }
    case 'uninstall': {
      const removed = uninstall(options);
      process.stdout.write(removed.map(path => `removed ${path}\n`).join('') || 'nothing was installed\n');
      return 0;
    }
    default:
      throw usage(`there is no "tulle cni ${verb}"`);
  }
}

function parse(args: readonly string[]) {
  try {
    const { values, positionals } = parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true });
    if (positionals.length > 1) throw usage(`"${positionals[1]}" is one word too many`);
    return { verb: positionals[0], values };
  } catch (error) {
    if (error instanceof TulleError) throw error;
    throw usage(messageOf(error).split('. ')[0]);
  }
}

function filled(option: string, text: string): string {
  if (text === '') throw usage(`--${option} is empty`);
  return text;
}

function socketOption(path: string): string {
  if (path.startsWith('/') && Buffer.byteLength(path) <= LONGEST_SOCKET_PATH) return path;
  throw usage(`--socket "${path}" is not an absolute path of at most ${LONGEST_SOCKET_PATH} bytes`);
}

/** It says itself what the others would. */
function configOption({ config, ...others }: ReturnType<typeof parse>['values']): string {
  for (const name of ['socket', 'name', 'portmap'] as const) {
    if (others[name] !== undefined) throw usage(`--${name} has no meaning with --config; leave one of them out`);
  }
  return filled('config', config ?? '');
}

function nameOption(name: string): string {
  if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name)) return name;
  throw usage(`--name "${name}" is not letters, digits, "_", "." and "-"`);
}

const usage = (message: string): TulleError => new TulleError('usage', `${message}: see "tulle cni --help"`);
