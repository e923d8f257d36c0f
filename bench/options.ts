/** The command line of the bench. */
import { parseOptions, usageError } from '../lib/lab/options.ts';
import { checkLabName } from '../lib/lab/plan.ts';
import { BASELINE, QUICK_NIC_TUNNELS, QUICK_TUNNELS, TUNNELS } from './tunnels/all.ts';
import { UNDERLAYS, type Underlay } from './underlay.ts';

export interface BenchOptions {
  readonly quick: boolean;
  readonly help: boolean;
  readonly draw: boolean;
  readonly rounds: number;
  readonly seconds: number;
  /** What to visit in each round, in this order. */
  readonly cells: readonly { readonly tunnel: string; readonly underlay: Underlay }[];
  /** Draw pictures and judge the targets of all that there is. */
  readonly whole: boolean;
  /** Programs that are not here may be fetched. */
  readonly fetch: boolean;
  /** Where results and plots go; undefined: beside the sources, in bench/. */
  readonly out: string | undefined;
  readonly name: string;
}

const LEAST_ROUNDS = 5;
const HELP = 'npm run bench -- --help';

export const HELP_TEXT = `Compares tulle with other tunnels on this machine, in network namespaces: two nodes, a pod on each, a veth pair between.
Prints tables, appends JSON lines to bench/results.jsonl, draws bench/plots/*.svg. As root; all of it takes more than an hour.

  npm run bench                                    everything: ${LEAST_ROUNDS} rounds, all tunnels, both underlays
  npm run bench -- --quick                         under 2 minutes; the last line of stdout is one JSON object
  npm run bench -- --only tulle,fastd --rounds 1   a look at two of them (and at ${BASELINE}, which ratios need)

options:
  --quick           fewer tunnels and workloads, as many rounds as time allows (at most 3)
  --only A,B        only these tunnels, and ${BASELINE}
  --rounds N        rounds, 1 to 50 (default ${LEAST_ROUNDS}): each visits every tunnel once
  --seconds S       of each measurement, 1 to 60 (default 3, quick: 1)
  --underlay NAME   ${UNDERLAYS.join(' or ')} (default both): nic segments and coalesces as a network card does
  --no-fetch        do not fetch what is missing from Debian's archive: skip it
  --out FOLDER      where results.jsonl and plots/ go (default bench)
  --draw            draw the plots of the last full run in results.jsonl again, and measure nothing
  --name NAME       name of the stage, for a second bench at the same time (default bench)

tunnels:
${TUNNELS.map(({ name, about }) => `  ${name.padEnd(16)}  ${about}`).join('\n')}
`;

export function parseBenchOptions(args: readonly string[]): BenchOptions {
  const parsed = parseOptions(
    args,
    {
      help: { flag: true },
      h: { flag: true },
      quick: { flag: true },
      draw: { flag: true },
      'no-fetch': { flag: true },
      only: { text: 'A,B' },
      rounds: { numbers: [1, 50] },
      seconds: { numbers: [1, 60] },
      underlay: { words: UNDERLAYS },
      out: { text: 'FOLDER' },
      name: { text: 'NAME' },
    },
    HELP,
  );
  const [extra] = [...parsed.positional, ...(parsed.rest ?? [])];
  if (extra !== undefined) throw usageError(`the bench does not know what to do with "${extra}": see "${HELP}"`);
  const quick = parsed.flags.has('quick');
  const only = parsed.values.get('only');
  const underlay = parsed.values.get('underlay') as Underlay | undefined;
  const cells = (underlay === undefined ? UNDERLAYS : [underlay]).flatMap(each => {
    const quickly = each === 'nic' ? QUICK_NIC_TUNNELS : QUICK_TUNNELS;
    const names = only !== undefined ? chosen(only) : quick ? quickly : TUNNELS.map(({ name }) => name);
    return names.map(tunnel => ({ tunnel, underlay: each }));
  });
  return {
    quick,
    help: parsed.flags.has('help') || parsed.flags.has('h'),
    draw: parsed.flags.has('draw'),
    rounds: parsed.numbers.get('rounds') ?? (quick ? 3 : LEAST_ROUNDS),
    seconds: parsed.numbers.get('seconds') ?? (quick ? 1 : 3),
    cells,
    whole: !quick && only === undefined && underlay === undefined,
    fetch: !parsed.flags.has('no-fetch'),
    out: parsed.values.get('out'),
    name: checkLabName(parsed.values.get('name') ?? 'bench'),
  };
}

/** In the order of the table, with the baseline. */
function chosen(text: string): string[] {
  const wanted = text.split(',').map(word => word.trim());
  for (const word of wanted) {
    if (TUNNELS.some(({ name }) => name === word)) continue;
    throw usageError(`--only knows ${TUNNELS.map(({ name }) => name).join(', ')}, not "${word}"`);
  }
  return TUNNELS.map(({ name }) => name).filter(name => name === BASELINE || wanted.includes(name));
}
