#!/usr/bin/env node
/** The command line of tulle: finds the command, runs it, turns an error into one line and exit code 1. */
import { messageOf, TulleError } from '../lib/util/errors.ts';

const HELP = `tulle: a pod network that you can read

usage: tulle COMMAND [ARGUMENT ...]

commands:
  capture    what passes through this node's data path: "tulle capture --help"
  lab        a cluster of network namespaces on this machine: "tulle lab --help"
  lease      who has which subnet, who had it, and why: "tulle lease --help"
  status     what this node says of itself, and whether it is well: "tulle status --help"
  doctor     what of this machine keeps an overlay from working, and what to do: "tulle doctor --help"
  trace      one packet followed from this node to its destination: "tulle trace --help"
  migrate    what becomes of a configuration of flannel's: "tulle migrate --help"
  lesson     learn what an overlay does, step by step: "tulle lesson --list"
  cni        the CNI plugin of this machine: "tulle cni --help"

The node daemon is a program of its own: "tulled --help".
`;

/** Loaded when they are asked for, so that no command pays for another. */
const COMMANDS: Readonly<Record<string, () => Promise<(args: readonly string[]) => Promise<number>>>> = {
  capture: async () => (await import('./tulle-capture.ts')).capture,
  cni: async () => (await import('../lib/cni/command.ts')).cni,
  doctor: async () => (await import('./tulle-doctor.ts')).doctor,
  lab: async () => (await import('../lib/lab/command.ts')).lab,
  status: async () => (await import('./tulle-status.ts')).status,
  trace: async () => (await import('./tulle-trace.ts')).trace,
  migrate: async () => (await import('./tulle-migrate.ts')).migrate,
  lease: async () => (await import('./tulle-lease.ts')).lease,
  lesson: async () => (await import('../lib/lab/lesson-command.ts')).lesson,
};

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    process.stdout.write(HELP);
    return 0;
  }
  if (!Object.hasOwn(COMMANDS, name))
    throw new TulleError('usage', `there is no command "${name}": see "tulle --help"`);
  return (await COMMANDS[name]())(rest);
}

/** A person gets one line; what we did not expect shows where it happened when TULLE_DEBUG is set. */
function complain(error: unknown): void {
  const debug = process.env['TULLE_DEBUG'] !== undefined && error instanceof Error;
  process.stderr.write(`tulle: ${debug ? error.stack : messageOf(error)}\n`);
}

main(process.argv.slice(2)).then(
  code => process.exit(code),
  error => {
    complain(error);
    process.exit(1);
  },
);
