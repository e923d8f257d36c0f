// Runs a compiled program of this repository, after making sure that it can run: `node scripts/run.mjs dist/cmd/tulle.js lab up`.
// A fresh clone has neither node_modules nor dist; this script makes both, so that one command is enough.
// Everything it says goes to stderr: stdout belongs to the program.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { ensureBuilt } from './prepare.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const [program, ...args] = process.argv.slice(2);
if (program === undefined) {
  console.error('usage: node scripts/run.mjs PROGRAM [ARGUMENT ...]');
  process.exit(1);
}

ensureBuilt(root);
if (!existsSync(`${root}/${program}`)) {
  console.error(`${program} was not built: run "npm run build" and look at its messages`);
  process.exit(1);
}

// Node 20 parses this file at every start, at three times the cost of the start itself; nothing here uses TLS roots.
const { NODE_EXTRA_CA_CERTS: _, ...environment } = process.env;
const child = spawn(process.execPath, ['--enable-source-maps', `${root}/${program}`, ...args], {
  stdio: 'inherit',
  env: environment,
});
// A terminal's Ctrl-C reaches the whole group; a signal sent to this process alone must be handed on.
for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
});
