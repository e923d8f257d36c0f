#!/usr/bin/env node
import { main } from '../lib/daemon/main.ts';
import { realParts } from '../lib/daemon/parts.ts';

const code = await main(
  {
    args: process.argv.slice(2),
    environment: process.env,
    out: text => void process.stdout.write(text),
    error: text => void process.stderr.write(text),
    onSignal: action => {
      for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => action(name));
    },
  },
  realParts,
);
// A connection that does not want to close must not keep a stopped daemon alive.
process.exit(code);
