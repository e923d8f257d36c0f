import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { folder, pretend, root, runNode } from './support.ts';

const module = pathToFileURL(join(root, 'scripts/compiler.mjs')).href;

/** Compiles the addon and the plugin into `home` as a user's machine does; prints what the compiler said. */
const compile = `import * as c from '${module}';
const compiler = c.findCompiler();
const said = compiler === undefined ? ['none'] : [
  c.compileAddon({ compiler, headers: c.findHeaders(), target: 'tulle.node', flags: ['-O2'] }),
  c.compileCni({ compiler, target: 'tulle-cni', flags: c.cniFlags }),
];
console.log(JSON.stringify(said.map(each => each ?? '')));`;
const run = (home: string, environment: Record<string, string>): string[] => {
  const { stdout, stderr } = runNode(home, ['--input-type=module', '-e', compile], environment);
  t.equal(stderr, '');
  return JSON.parse(stdout);
};

t.test('the C sources compile without a warning', async t => {
  const said = run(folder(t), { TULLE_WERROR: '1' });
  if (said[0] === 'none') t.pass('SKIPPED: no C compiler here');
  else t.same(said, ['', '']);
});

t.test('a warning stops the tests and CI, and nobody else, whether from a clone or a package', async t => {
  const home = folder(t);
  pretend(home, { cc: 'while [ $# -gt 0 ]; do [ "$1" != -o ] || touch "$2"; shift; done' });
  const isStrict = (environment: Record<string, string>): boolean => {
    t.same(run(home, environment), ['', '']);
    return readFileSync(join(home, 'calls'), 'utf8')
      .trim()
      .split('\n')
      .slice(-2)
      .every(call => call.includes('-Werror'));
  };
  t.notOk(isStrict({}));
  t.ok(isStrict({ TULLE_WERROR: '1' }));
  t.ok(isStrict({ CI: 'true' }));
});
