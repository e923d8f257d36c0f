/** bench/cni/launch.c from Node.js: compiled for each run of the bench, started in a host's namespace. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../lib/lab/spawn.ts';
import { withNamespace } from '../../lib/sys/sys.ts';

export interface Job {
  /** The program's path. */
  file: string;
  /** Its stdin. */
  input: string;
  environment: Readonly<Record<string, string>>;
}

export interface Launcher {
  /** Milliseconds of each job and of all. @throws Error with what a job said that failed */
  run(namespace: string, jobs: readonly Job[], parallel: number): { each: number[]; all: number };
}

/** No run of one list takes longer than this. */
const LIMIT_MS = 300_000;

/** Compiles a C program of this folder. @returns its path. @throws Error without a compiler, or with its words */
export async function compile(name: string, directory: string): Promise<string> {
  const script = pathToFileURL(join(packageRoot(), 'scripts/compiler.mjs')).href;
  const { findCompiler } = (await import(script)) as { findCompiler(): string[] | undefined };
  const compiler = findCompiler();
  if (compiler === undefined) throw new Error('no C compiler: "apt-get install gcc libc6-dev"');
  const program = join(directory, name);
  const [command, ...words] = compiler;
  const source = join(packageRoot(), 'bench/cni', `${name}.c`);
  // Netlink messages are structures in an array of bytes.
  const flags = ['-std=gnu11', '-O2', '-fno-strict-aliasing', '-pthread'];
  const { status, stderr } = spawnSync(command, [...words, ...flags, source, '-o', program], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${name}.c could not be compiled: ${stderr}`);
  return program;
}

/** @param directory where the program may lie */
export async function openLauncher(directory: string): Promise<Launcher> {
  const program = await compile('launch', directory);
  return {
    run(namespace, jobs, parallel) {
      const input = jobs.map(textOf).join('');
      const options = { input, encoding: 'utf8', timeout: LIMIT_MS } as const;
      const { status, stdout, stderr, error } = withNamespace(namespace, () =>
        spawnSync(program, [String(parallel)], options),
      );
      if (status !== 0) throw new Error(`${jobs[0]?.file}: ${error?.message ?? stderr.trim()}`);
      const times = stdout
        .trim()
        .split('\n')
        .map(line => Number(line) / 1e6);
      return { each: times.slice(0, -1), all: times[times.length - 1] };
    },
  };
}

/** What the kernel alone takes, medians in milliseconds; see floor.c. */
export interface Floor {
  pair: number;
  rest: number;
  gone: number;
}

/** Runs bench/cni/floor.c. */
export async function measureFloor(directory: string, rounds: number): Promise<Floor> {
  const program = await compile('floor', directory);
  const { status, stdout, stderr } = spawnSync(program, [String(rounds)], { encoding: 'utf8', timeout: LIMIT_MS });
  if (status !== 0) throw new Error(`floor: ${stderr.trim()}`);
  const [pair, rest, gone] = stdout.split('\n').map(line => Number(line) / 1000);
  return { pair, rest, gone };
}

function textOf({ file, input, environment }: Job): string {
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return [file, input, String(variables.length), ...variables].map(part => `${part}\0`).join('');
}
