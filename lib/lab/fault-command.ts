/** `tulle lab fault …`: arguments in, exit code out. */
import { addFault, FAULT_KINDS, type FaultKind, type FaultStatus, listFaults, removeFault } from './fault.ts';
import { FAULT_ADD_HELP, FAULT_HELP, FAULT_LIST_HELP, FAULT_REMOVE_HELP } from './fault-help.ts';
import { DIRECTIONS, describe, type FaultDirection, type FaultSpec, MTU_MODES, type MtuMode } from './fault-spec.ts';
import { type OptionTable, type ParsedOptions, parseOptions, usageError } from './options.ts';
import { isInside, runBeside } from './rootless.ts';
import { runningLab } from './running.ts';
import { type LabState, stateRoot } from './state.ts';

const COMMON: OptionTable = { help: { flag: true }, h: { flag: true }, name: { text: 'LAB' } };
const ADD: OptionTable = {
  ...COMMON,
  json: { flag: true },
  ms: { text: 'N' },
  jitter: { text: 'N' },
  percent: { text: 'P' },
  bytes: { text: 'N' },
  mode: { words: MTU_MODES },
  address: { text: 'A' },
  direction: { words: DIRECTIONS },
  seed: { text: 'N' },
};
const LIST: OptionTable = { ...COMMON, json: { flag: true } };
const REMOVE: OptionTable = { ...COMMON, all: { flag: true } };

/** Runs `tulle lab fault ARGS`. */
export async function labFault(args: readonly string[]): Promise<number> {
  const [verb, ...rest] = args;
  switch (verb) {
    case 'add':
      return add(rest);
    case 'list':
    case 'ls':
      return list(rest);
    case 'remove':
    case 'rm':
      return remove(rest);
    case undefined:
    case 'help':
    case '--help':
    case '-h':
      return print(FAULT_HELP);
    default:
      throw usageError(`there is no "tulle lab fault ${verb}": see "tulle lab fault --help"`);
  }
}

async function add(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, ADD, 'tulle lab fault add --help');
  if (wantsHelp(options)) return print(FAULT_ADD_HELP);
  const spec = specOf(options);
  return inside(options, async state => {
    const fault = await addFault(state, spec);
    if (options.flags.has('json')) return print(`${JSON.stringify(fault)}\n`);
    return print(`${fault.id}: ${fault.where ?? 'between all nodes'}, ${describe(fault)}${aside(fault.direction)}\n`);
  });
}

const aside = (direction: FaultDirection): string => (direction === 'both' ? '' : ` (${direction} only)`);

/** What was typed, as far as it can be read without a lab. */
export function specOf(options: ParsedOptions): FaultSpec {
  const [kind, where, ...tooMuch] = [...options.positional, ...(options.rest ?? [])];
  if (kind === undefined) throw usageError(`say which fault: ${FAULT_KINDS.join(', ')}`);
  if (tooMuch.length > 0) throw usageError(`fault add does not know what to do with "${tooMuch[0]}"`);
  const { values } = options;
  return {
    kind: kind as FaultKind, // checkSpec knows better
    where,
    direction: values.get('direction') as FaultDirection | undefined,
    ms: numberOf('ms', values.get('ms')),
    jitterMs: numberOf('jitter', values.get('jitter')),
    percent: numberOf('percent', values.get('percent')),
    bytes: numberOf('bytes', values.get('bytes')),
    mode: values.get('mode') as MtuMode | undefined,
    address: values.get('address'),
    seed: numberOf('seed', values.get('seed')),
  };
}

/** "40", "0.5", and the units that people write after them. */
function numberOf(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const match = /^(\d{1,10}(?:\.\d{1,6})?)(?:ms|%)?$/.exec(text);
  if (match === null) throw usageError(`--${name} is a number, not "${text}"`);
  return Number(match[1]);
}

async function list(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, LIST, 'tulle lab fault list --help');
  if (wantsHelp(options)) return print(FAULT_LIST_HELP);
  noMore(options, 0);
  return inside(options, async state => {
    const faults = await listFaults(state);
    return print(options.flags.has('json') ? `${JSON.stringify(faults)}\n` : faultTable(faults));
  });
}

/** The faults as a person reads them. */
export function faultTable(faults: readonly FaultStatus[]): string {
  if (faults.length === 0) return 'no faults: the underlay is as it should be\n';
  const rows = faults.map(fault => [
    fault.id,
    fault.where ?? 'all nodes',
    `${describe(fault)}${aside(fault.direction)}`,
    fault.state === 'lost'
      ? 'lost: its relay was ended, and the link mended'
      : fault.frames === null
        ? ''
        : `${fault.frames} frames`,
  ]);
  const widths = [0, 1, 2].map(i => Math.max(...rows.map(row => row[i].length)));
  return rows
    .map(
      row =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

async function remove(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, REMOVE, 'tulle lab fault remove --help');
  if (wantsHelp(options)) return print(FAULT_REMOVE_HELP);
  const [id] = options.positional;
  const all = options.flags.has('all');
  if ((id === undefined) !== all) throw usageError('fault remove takes the id of one fault, or --all');
  noMore(options, 1);
  return inside(options, async state => {
    const gone = await removeFault(state, all ? 'all' : id);
    return print(gone.length === 0 ? 'there was none\n' : `removed: ${gone.map(fault => fault.id).join(', ')}\n`);
  });
}

/** Runs `action` where the lab's namespaces are. */
async function inside(options: ParsedOptions, action: (state: LabState) => Promise<number>): Promise<number> {
  const root = stateRoot();
  const state = runningLab(root, options.values.get('name'));
  if (state.record.rootless && !isInside()) return runBeside(state, root);
  return action(state);
}

const wantsHelp = (options: ParsedOptions): boolean => options.flags.has('help') || options.flags.has('h');

function noMore(options: ParsedOptions, most: number): void {
  const [first] = [...options.positional.slice(most), ...(options.rest ?? [])];
  if (first !== undefined) throw usageError(`lab fault does not know what to do with "${first}"`);
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
