/**
 * The house's rules, held by a test: which room may import which, no cycles, one idea a file, no default exports. Every
 * failure names what to do instead.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** The repository, whether this runs compiled (dist/test) or from another output folder. */
function findRoot(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from));
}
const root = findRoot(dirname(fileURLToPath(import.meta.url)));

/** A room may import rooms of lower floors, itself, and util; docs/architecture.md draws this. */
const FLOORS: Record<string, number> = {
  util: 0,
  wire: 0,
  sys: 1,
  netlink: 2,
  datapath: 3,
  host: 3,
  lease: 3,
  backend: 4,
  etcd: 4,
  kube: 4,
  cni: 4,
  observe: 4,
  daemon: 5,
  migrate: 5,
  lab: 5,
  cmd: 6,
};
/** Lower floors are open to higher ones, and these may look at a neighbour on their own floor. */
const NEIGHBOURS = new Set(['backend>host', 'backend>datapath', 'lab>daemon', 'migrate>daemon']);
const LONGEST_FILE = 400;
/** Longer for a reason: a table with one entry a line is one idea however long it is. */
const TABLES = new Set(['lib/daemon/flags.ts']);

function sources(folder: string, ending: RegExp): string[] {
  const path = join(root, folder);
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && ending.test(entry.name))
    .map(entry => relative(root, join(entry.parentPath, entry.name)));
}

const product = ['lib', 'cmd', 'etcd'].flatMap(folder => sources(folder, /\.ts$/));
const roomOf = (file: string): string => (file.startsWith('lib/') ? file.split('/')[1] : file.split('/')[0]);

interface Import {
  from: string;
  /** A file of the repository, or a package's name. */
  to: string;
}

const imports: Import[] = product.flatMap(from => {
  const text = readFileSync(join(root, from), 'utf8');
  return [
    ...text.matchAll(
      /(?:^|\n)\s*(?:import|export)\s[^'";]*?from\s+'([^']+)'|import\('([^']+)'\)|(?:^|\n)import '([^']+)'/g,
    ),
  ].map(match => {
    const name = match[1] ?? match[2] ?? match[3];
    return { from, to: name.startsWith('.') ? relative(root, join(root, dirname(from), name)) : name };
  });
});

t.test('imports point down', async t => {
  t.ok(imports.length > 100, `${imports.length} imports were found`);
  const wrong = imports.filter(({ from, to }) => {
    if (!product.includes(to)) return false;
    const [a, b] = [roomOf(from), roomOf(to)];
    return a !== b && FLOORS[b] >= FLOORS[a] && !(FLOORS[b] === FLOORS[a] && NEIGHBOURS.has(`${a}>${b}`));
  });
  t.same(wrong, [], 'move what is shared down, or pass it in as an argument');
  t.same(
    [...new Set(product.map(roomOf).filter(room => FLOORS[room] === undefined))],
    [],
    'give a new room its floor in this test',
  );
});

t.test('the heavy and the special stay in their rooms', async t => {
  const only = (name: string, room: string): void => {
    const wrong = imports.filter(({ from, to }) => (to === name || to.startsWith(`${name}/`)) && roomOf(from) !== room);
    t.same(wrong, [], `only ${room}/ imports ${name}`);
  };
  only('etcd3', 'etcd');
  only('@kubernetes/client-node', 'kube');
  const wire = imports.filter(({ from, to }) => roomOf(from) === 'wire' && roomOf(to) !== 'wire');
  t.same(wrong(wire), [], 'lib/wire runs in a browser: it imports nothing from outside');
  const addon = product.filter(
    file => roomOf(file) !== 'sys' && /process\.dlopen|\.node['"`]/.test(readFileSync(join(root, file), 'utf8')),
  );
  t.same(addon, [], 'only lib/sys loads the addon');
});
const wrong = (list: Import[]): string[] => list.map(({ from, to }) => `${from} -> ${to}`);

t.test('there are no circles', async t => {
  const targets = new Map(
    product.map(file => [
      file,
      imports.filter(({ from, to }) => from === file && product.includes(to)).map(({ to }) => to),
    ]),
  );
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, path: string[]): void => {
    if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file].join(' -> '));
    if (done.has(file) || path.includes(file)) return;
    for (const next of targets.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of product) visit(file, []);
  t.same(circles, []);
});

t.test('files hold one idea', async t => {
  const long = [...product, ...sources('lib', /\.[ch]$/)]
    .filter(file => !TABLES.has(file))
    .map(file => [file, readFileSync(join(root, file), 'utf8').split('\n').length - 1] as const)
    .filter(([, lines]) => lines > LONGEST_FILE);
  t.same(long, [], `split a file of more than ${LONGEST_FILE} lines where it holds two ideas`);
});

t.test('exports have names', async t => {
  const unnamed = product.filter(file => /^export default/m.test(readFileSync(join(root, file), 'utf8')));
  t.same(unnamed, []);
});

t.test('every room but the thin ones has tests that mirror it', async t => {
  const tests = sources('test', /\.test\.ts$/);
  const rooms = new Set(product.filter(file => !file.startsWith('cmd/')).map(roomOf));
  t.same(
    [...rooms].filter(room => !tests.some(file => file.startsWith(`test/${room}/`))),
    [],
    'write test/<room>/<file>.test.ts',
  );
});
