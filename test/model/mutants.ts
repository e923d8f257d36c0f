/**
 * Managers that are wrong on purpose. A mutant is the compiled text of lib/lease with one thing changed, loaded beside the
 * right one; a simulation that does not find it proves nothing.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { LeaseManager } from '../../lib/lease/manager.ts';

export interface Mutant {
  /** What is wrong with it. */
  name: string;
  /** A file of lib/lease, without its ending. */
  file: string;
  from: RegExp;
  to: string;
  /** What the simulation says. */
  caught: RegExp;
  /** Where to begin to look: a seed that is known to show it, so that a test is quick. */
  seed?: number;
}

const owners = /two live owners/;
const robbed = /goes on with|two live owners|does not have/;
const missed = /missed its renewal/;

export const mutants: readonly Mutant[] = [
  {
    name: 'counts the deadline from the answer',
    file: 'manager',
    from: /const sent = this\.#clock\.monotonicMs\(\);\n(\s+try \{\n\s+const lease = await verb\(\);)/,
    to: '$1 const sent = this.#clock.monotonicMs();',
    caught: owners,
    seed: 16,
  },
  { name: 'trusts that all clocks are equal', file: 'deadline', from: /1 \/ 500/, to: '0', caught: owners },
  {
    name: 'takes an unanswered renewal for a renewal',
    file: 'manager',
    from: /if \(error\.code === 'unavailable'\)\s+this\.#unanswered = true;/,
    to: "if (error.code === 'unavailable') { this.#accept(subnets, sent, request); return undefined; }",
    caught: owners,
  },
  {
    name: 'takes whatever lease is on its subnet for its own',
    file: 'manager',
    from: /whyLost\(snapshot, found, previous, request\)/,
    to: 'undefined',
    caught: owners,
  },
  {
    name: 'knows a lease by the node id alone',
    file: 'choose',
    from: /return holder === request\.nodeId && \(.*\);/,
    to: 'return holder === request.nodeId;',
    caught: /two live owners|have no subnet/,
  },
  {
    name: 'waits for ever longer between attempts',
    file: 'manager',
    from: /Math\.min\(longestPauseMs, \(ttlSeconds \* 1000\) \/ 3\)/,
    to: '(ttlSeconds * 1000)',
    caught: missed,
  },
  {
    name: 'renews at the deadline',
    file: 'deadline',
    from: /return Math\.min\(1000 \* ttlSeconds.*\);/,
    to: 'return 1000 * ttlSeconds;',
    caught: missed,
  },
  {
    name: 'forgets that its trust ends before the TTL',
    file: 'deadline',
    from: /return Math\.min\(1000 \* ttlSeconds.*\);/,
    to: 'return 1000 * ttlSeconds - marginMs;',
    caught: missed,
    seed: 13,
  },
  {
    name: 'takes another history for the past',
    file: 'sightings',
    from: /const isOtherHistory = [^;]*;/,
    to: 'const isOtherHistory = false; if (revision < lease.modRevision) return undefined;',
    caught: robbed,
  },
  {
    name: 'forwards until its deadline although its key is another’s',
    file: 'manager',
    from: /#fence\(\) \{/,
    to: '#fence() { return;',
    caught: robbed,
  },
  {
    name: 'gives up a lease that is gone',
    file: 'manager',
    from: /if \(lost !== undefined\)\s+return lost;/,
    to: 'if (lost !== undefined) return lost; if (found === undefined) { this.#due = false; return undefined; }',
    caught: /two live owners|have no subnet|missed|does not have/,
  },
];

/** The directory of the compiled lib/lease. */
const original = fileURLToPath(new URL('../../lib/lease/', import.meta.url));

/** Loads the mutant; `remove` takes its files away. */
export async function loadMutant({
  name,
  file,
  from,
  to,
}: Mutant): Promise<{ Manager: typeof LeaseManager; remove(): void }> {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-mutant-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'lease'));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  for (const entry of readdirSync(original).filter(entry => entry.endsWith('.js'))) {
    let text = readFileSync(join(original, entry), 'utf8').replace(/\n\/\/# sourceMappingURL.*/, '');
    if (entry === `${file}.js`) {
      const changed = text.replace(from, to);
      if (changed === text) throw new Error(`mutant "${name}": ${entry} has no ${from}`);
      text = changed;
    }
    // The rooms below are the real ones, and so are the classes of errors.
    text = text.replace(/from (['"])\.\.\//g, `from $1${pathToFileURL(join(original, '..'))}/`);
    if (entry !== 'registry.js')
      text = text.replace(/from (['"])\.\/registry\.js/, `from $1${pathToFileURL(original)}registry.js`);
    writeFileSync(join(folder, 'lease', entry), text);
  }
  const module = (await import(pathToFileURL(join(folder, 'lease/manager.js')).href)) as {
    LeaseManager: typeof LeaseManager;
  };
  return { Manager: module.LeaseManager, remove };
}
