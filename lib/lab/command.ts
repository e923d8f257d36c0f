/** `tulle lab …`: arguments in, exit code out. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_PORT } from '../observe/page-server.ts';
import { TulleError } from '../util/errors.ts';
import { down } from './down.ts';
import { execIn } from './exec.ts';
import { labFault } from './fault-command.ts';
import { DOWN_HELP, EXEC_HELP, LAB_HELP, STATUS_HELP, UP_HELP } from './help.ts';
import { type OptionTable, type ParsedOptions, parseOptions, usageError } from './options.ts';
import { DOOR_PORT_VARIABLE, DOOR_SOCKET_VARIABLE, type Door, openDoor } from './page-door.ts';
import {
  checkLabName,
  type LabRegistry,
  type LabTransport,
  MOST_NODES,
  MOST_PODS,
  REGISTRIES,
  TRANSPORTS,
} from './plan.ts';
import { failureOf } from './result.ts';
import { hasPrivileges, isInside, runBeside, runInside } from './rootless.ts';
import { runningLab } from './running.ts';
import * as store from './state.ts';
import { up } from './up.ts';

const COMMON: OptionTable = { help: { flag: true }, h: { flag: true }, name: { text: 'NAME' } };
const UP: OptionTable = {
  ...COMMON,
  nodes: { numbers: [2, MOST_NODES] },
  pods: { numbers: [1, MOST_PODS] },
  registry: { words: REGISTRIES },
  transport: { words: TRANSPORTS },
  seconds: { numbers: [1, 60] },
  compare: { flag: true },
  once: { flag: true },
  json: { flag: true },
  'no-page': { flag: true },
  'page-port': { numbers: [1, 65_535] },
};
const STATUS: OptionTable = { ...COMMON, json: { flag: true } };

/** Runs `tulle lab ARGS`. */
export async function lab(args: readonly string[]): Promise<number> {
  const [verb, ...rest] = args;
  switch (verb) {
    case 'up':
      return labUp(rest);
    case 'down':
      return labDown(rest);
    case 'exec':
      return labExec(rest);
    case 'ping':
    case 'tcp':
    case 'forge':
    case 'trace':
    case 'restart':
    case 'stop':
      return (await import('./tool-command.ts')).labTool(verb, rest);
    case 'fault':
      return labFault(rest);
    case 'status':
      return labStatus(rest);
    case undefined:
    case 'help':
    case '--help':
    case '-h':
      return print(LAB_HELP);
    default:
      throw usageError(`there is no "tulle lab ${verb}": see "tulle lab --help"`);
  }
}

async function labUp(args: readonly string[]): Promise<number> {
  try {
    const options = parseOptions(args, UP, 'tulle lab up --help');
    if (wantsHelp(options)) return print(UP_HELP);
    noArguments(options, 'up');
    const root = store.stateRoot();
    const name = nameOf(options);
    if (!hasPrivileges() && !isInside()) {
      store.ensureStateRoot(root, false);
      const door = options.flags.has('once') || options.flags.has('no-page') ? undefined : await doorOf(options, root);
      try {
        return await runInside(root);
      } finally {
        door?.close();
        store.removeStateRoot(root);
      }
    }
    return await up({
      root,
      name,
      nodes: options.numbers.get('nodes') ?? 2,
      pods: options.numbers.get('pods') ?? 1,
      registry: (options.values.get('registry') ?? 'file') as LabRegistry,
      transport: (options.values.get('transport') ?? 'offload') as LabTransport,
      seconds: options.numbers.get('seconds') ?? 3,
      compare: options.flags.has('compare'),
      once: options.flags.has('once'),
      json: options.flags.has('json'),
      page: !options.flags.has('no-page'),
      pagePort: options.numbers.get('page-port'),
    });
  } catch (error) {
    if (args.includes('--json')) process.stdout.write(`${JSON.stringify(failureOf(error))}\n`);
    throw error;
  }
}

/** Outside of the lab's namespaces: where its page is reached. */
async function doorOf(options: ParsedOptions, root: string): Promise<Door> {
  const socket = join(store.labDirectory(root, nameOf(options)), 'page.sock');
  const wanted = options.numbers.get('page-port');
  const door = await openDoor(socket, wanted ?? PAGE_PORT, wanted === undefined);
  process.env[DOOR_SOCKET_VARIABLE] = socket;
  process.env[DOOR_PORT_VARIABLE] = String(door.port);
  return door;
}

async function labDown(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, COMMON, 'tulle lab down --help');
  if (wantsHelp(options)) return print(DOWN_HELP);
  noArguments(options, 'down');
  const name = nameOf(options);
  const ended = await down(store.stateRoot(), name);
  process.stderr.write(ended ? `the lab "${name}" is down\n` : `there is no lab "${name}": nothing to take down\n`);
  return 0;
}

async function labExec(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, COMMON, 'tulle lab exec --help');
  if (wantsHelp(options)) return print(EXEC_HELP);
  const [where, ...tooMuch] = options.positional;
  if (where === undefined || tooMuch.length > 0 || options.rest === undefined || options.rest.length === 0) {
    throw usageError(
      'lab exec takes a node or a pod, "--" and a command, for example: tulle lab exec pod1 -- cat /proc/net/dev',
    );
  }
  const root = store.stateRoot();
  const state = runningLab(root, nameOf(options));
  if (state.record.rootless && !isInside()) return runBeside(state, root);
  return execIn(state, where, options.rest, isInside() ? process.env['TULLE_LAB_CWD'] : undefined);
}

async function labStatus(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, STATUS, 'tulle lab status --help');
  if (wantsHelp(options)) return print(STATUS_HELP);
  noArguments(options, 'status');
  const state = runningLab(store.stateRoot(), nameOf(options));
  if (!state.record.ready) throw new TulleError('starting', `the lab "${state.record.name}" is still coming up`);
  if (options.flags.has('json')) return print(readFileSync(join(state.directory, 'result.json'), 'utf8'));
  const url = store.loadPageUrl(state);
  const page = url === undefined ? '' : `The microscope, for your browser: ${url}\n`;
  return print(`${readFileSync(join(state.directory, 'picture.txt'), 'utf8')}\n${page}`);
}

const wantsHelp = (options: ParsedOptions): boolean => options.flags.has('help') || options.flags.has('h');
const nameOf = (options: ParsedOptions): string => checkLabName(options.values.get('name') ?? 'lab');

function noArguments(options: ParsedOptions, verb: string): void {
  const [first] = [...options.positional, ...(options.rest ?? [])];
  if (first !== undefined)
    throw usageError(`lab ${verb} does not know what to do with "${first}": see "tulle lab ${verb} --help"`);
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
