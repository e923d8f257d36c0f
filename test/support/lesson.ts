/** Plays the learner: the commands of a lesson's page, as they stand there, in one shell. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { LESSONS } from '../../lib/lab/lesson-list.ts';
import { hasPrivileges } from '../../lib/lab/rootless.ts';
import { packageRoot, program } from '../../lib/lab/spawn.ts';

export const skipLessons = hasPrivileges() && existsSync('/dev/net/tun') ? false : 'needs root and /dev/net/tun';
const LIMIT_MS = 150_000;

/** The blocks of a page that are marked with "sh run". */
export function runBlocks(page: string): string[] {
  const text = readFileSync(join(packageRoot(), 'docs/lessons', page), 'utf8');
  return [...text.matchAll(/^```sh run\n([\s\S]*?)^```$/gm)].map(match => match[1]);
}

interface Outcome {
  readonly status: number | null;
  readonly output: string;
}

/** First the check says what is missing, then the page's commands are executed, then the check passes. */
export function playLesson(t: Test, number: number): void {
  const lesson = LESSONS[number - 1];
  const folder = mkdtempSync(join(tmpdir(), 'tulle-lesson-test-'));
  const env = { ...process.env, TULLE_LAB_ROOT: join(folder, 'lab') };
  const options = { env, cwd: packageRoot(), encoding: 'utf8', timeout: LIMIT_MS } as const;
  const tulle = (...args: string[]): Outcome => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [program('cmd/tulle.js'), ...args], options);
    return { status, output: stdout + stderr };
  };
  const n = String(number);
  t.teardown(() => {
    tulle('lesson', n, '--down');
    rmSync(folder, { recursive: true, force: true });
  });

  const begun = tulle('lesson', n);
  t.equal(begun.status, 0, begun.output);
  t.match(begun.output, /\nThe microscope, for your browser: http:\/\/127\.0\.0\.1:\d+\/\?token=\S/);
  for (const goal of lesson.goals) t.ok(begun.output.includes(goal.task), `it says: ${goal.task}`);

  const before = tulle('lesson', n, '--hint');
  t.equal(before.status, 1, 'nothing is done yet');
  t.equal(before.output.match(/^ {2}✘ /gm)?.length, lesson.goals.length, before.output);
  t.equal(before.output.match(/^ {6}missing: \S/gm)?.length, lesson.goals.length, 'and what is missing is said');
  t.equal(before.output.match(/^ {6}hint: \S/gm)?.length, lesson.goals.length);

  // The page as a person types it, but for the end of it.
  const commands = runBlocks(lesson.page)
    .join('')
    .replace(/^tulle lesson \d --down\n/gm, '');
  const prelude = `tulle() { '${process.execPath}' '${program('cmd/tulle.js')}' "$@"; }\nset -u\n`;
  const compiled = commands.replaceAll('dist/cmd/tulled.js', program('cmd/tulled.js'));
  const played = spawnSync('bash', ['-c', prelude + compiled], options);
  const said = played.stdout + played.stderr;
  t.notMatch(
    said,
    /see "tulle|unknown option|takes no value|unbound variable|command not found/,
    'every command exists',
  );
  t.equal(played.signal, null, `in time: ${said.slice(-2000)}`);

  const after = tulle('lesson', n, '--check');
  t.equal(after.status, 0, `${said}\n${after.output}`);
  t.notMatch(after.output, /✘/);
  t.match(after.output, new RegExp(`Lesson ${number} is done`));
  t.match(tulle('lesson', n, '--down'), { status: 0, output: `The lab of lesson ${number} is down.\n` });
  t.same(existsSync(env.TULLE_LAB_ROOT) ? readdirSync(env.TULLE_LAB_ROOT) : [], [], 'nothing is left');
}
