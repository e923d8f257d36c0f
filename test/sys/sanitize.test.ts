/** The fixtures again, with an addon that AddressSanitizer and UndefinedBehaviorSanitizer watch. */
import { spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fixture, root, run } from './support.ts';

const library = spawnSync('gcc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).stdout?.trim() ?? '';
const skip = !library.startsWith('/') || !existsSync(library) ? 'SKIPPED: no libasan here (it comes with gcc)' : false;
const addon = join(root, 'build', `linux-${process.arch}-asan`, 'tulle.node');

t.test('under AddressSanitizer', { skip }, async t => {
  const built = run(process.execPath, [join(root, 'scripts/build-addon.mjs'), '--sanitize'], {
    CC: 'gcc',
    TULLE_WERROR: '1',
  });
  t.equal(built.status, 0, built.stderr);
  const environment = {
    TULLE_ADDON: addon,
    LD_PRELOAD: realpathSync(library),
    ASAN_OPTIONS: 'detect_leaks=0',
    UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1',
  };
  const seed = String(Date.now() % 1e9);
  for (const [name, status, args] of [
    ['terminate', 0, []],
    ['exit', 7, []],
    ['worker-ends', 0, []],
    ['close-while-busy', 0, []],
    ['watch', 0, []],
    ['garbage', 0, []],
    ['hostile', 0, [seed]],
    ['unix-datagram', 0, [seed]],
    ['open-tun', 0, []],
  ] as const) {
    const child = run(process.execPath, ['--expose-gc', fixture(name), ...args], environment);
    t.equal(child.status, status, `${name} ${args.join(' ')}: ${child.stderr.slice(0, 4000)}`);
    t.notMatch(child.stderr, /AddressSanitizer|runtime error/, name);
  }
});
