#!/usr/bin/env node
/** tulle-cni in TypeScript, for where the C program (cmd/tulle-cni) was not built. */
import { runClient } from '../lib/cni/client.ts';

process.exitCode = await runClient(process.env);
