/**
 * Documents that cannot rot: whatever a document names (a file, a script, a flag, a drop reason, a dependency, another
 * document) must exist, and what must be explained is. What is wrong is named with the file and line that says it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { flags } from '../lib/daemon/flags.ts';
import { DROP_REASONS } from '../lib/datapath/counters.ts';
import { UP_HELP } from '../lib/lab/help.ts';

/** The repository, whether this runs compiled (dist/test) or from another output folder. */
function findRoot(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from));
}
const root = findRoot(dirname(fileURLToPath(import.meta.url)));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

interface Line {
  text: string;
  /** Inside a fenced block. */
  code: boolean;
  where: string;
}

interface Document {
  path: string;
  lines: Line[];
}

function openDocument(path: string): Document {
  let code = false;
  const lines = read(path)
    .split('\n')
    .map((text, i) => {
      const fence = text.trimStart().startsWith('```');
      if (fence) code = !code;
      return { text, code: code || fence, where: `${path}:${i + 1}` };
    });
  return { path, lines };
}

/** Built, fetched or hidden: not ours to check. */
const FOREIGN = /^(node_modules|dist|build|prebuilds|coverage|\..*)$/;

function markdownFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return FOREIGN.test(entry.name) ? [] : markdownFiles(path);
    return entry.name.endsWith('.md') ? [path] : [];
  });
}

const documents = markdownFiles('').sort().map(openDocument);
const readme = openDocument('README.md');
const allLines = documents.flatMap(document => document.lines);

/** GitHub's anchor of a heading. */
function anchorOf(heading: string): string {
  const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/`/g, '');
  return plain
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replace(/\s/g, '-');
}

function headings({ lines }: Document): string[] {
  return lines.flatMap(({ text, code }) => (code ? [] : (text.match(/^#{1,6} (.*)$/)?.slice(1) ?? [])));
}

/** The lines below a heading that begins with `title`, up to the next heading of that level or above. */
function section(document: Document, title: string): Line[] {
  const { lines } = document;
  const isHeading = ({ text, code }: Line): boolean => !code && /^#{1,6} /.test(text);
  const start = lines.findIndex(line => isHeading(line) && line.text.replace(/^#+ /, '').startsWith(title));
  if (start < 0) throw new Error(`${document.path} has no heading "${title}"`);
  const level = (text: string): number => text.match(/^#+/)?.[0].length ?? 0;
  const rest = lines.slice(start + 1);
  const length = rest.findIndex(line => isHeading(line) && level(line.text) <= level(lines[start].text));
  return length < 0 ? rest : rest.slice(0, length);
}

/** The first cell of each row of the tables in these lines, without its backticks; rows of headings are left out. */
function firstCells(lines: readonly Line[]): string[] {
  return lines.flatMap(({ text, code }) => (code ? [] : (text.match(/^\| `([^`]+)`/)?.slice(1) ?? [])));
}

/** What stands in backticks or in a fenced block. */
function codeOf({ text, code }: Line): string {
  return code ? text : [...text.matchAll(/`([^`]+)`/g)].map(match => match[1]).join(' \n ');
}

t.test('every relative link leads somewhere', async t => {
  const anchors = new Map(documents.map(document => [document.path, new Set(headings(document).map(anchorOf))]));
  const broken: string[] = [];
  let count = 0;
  for (const { path, lines } of documents) {
    for (const { text, code, where } of lines) {
      for (const [, target] of code ? [] : text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^(https?|mailto):/.test(target)) continue;
        count++;
        const [file, anchor] = target.split('#', 2);
        const to = file === '' ? path : relative(root, join(root, dirname(path), file));
        if (!existsSync(join(root, to)) || to.startsWith('..')) broken.push(`${where}: ${target}: no such file`);
        else if (anchor !== undefined && anchors.get(to)?.has(anchor) !== true)
          broken.push(`${where}: ${target}: no such heading`);
      }
    }
  }
  t.ok(count > 50, `${count} links were found`);
  t.same(broken, []);
});

t.test('every script that is named exists', async t => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const named = allLines.flatMap(line =>
    [...line.text.matchAll(/\bnpm (?:run ([\w:-]+)|(test|start)\b)/g)].map(match => ({
      name: match[1] ?? match[2],
      where: line.where,
    })),
  );
  t.ok(named.length > 3, `${named.length} were found`);
  t.same(
    named.filter(({ name }) => !Object.hasOwn(scripts, name)),
    [],
  );
});

t.test('every file of ours that is named exists', async t => {
  // Not dist/cmd/…, and no path of another project that only ends like ours.
  const pattern = /(?<![\w./-])(?:lib|test|etcd|cmd|scripts|docs|bench|deploy)\/[\w./-]*\w/g;
  const named = allLines.flatMap(line =>
    [...line.text.matchAll(pattern)].map(([path]) => ({ path, where: line.where })),
  );
  t.ok(named.length > 100, `${named.length} were found`);
  t.same(
    named.filter(({ path }) => !existsSync(join(root, path))),
    [],
    'a file was moved or renamed',
  );
});

t.test('every flag in the README exists', async t => {
  const ofTulled = new Set<string>(flags.map(flag => flag.name));
  const ofLab = new Set([...UP_HELP.matchAll(/--([a-z-]+)/g)].map(match => match[1]));
  t.ok(ofLab.has('once'), 'the help of the lab was understood');
  const wrong: string[] = [];
  let count = 0;
  for (const line of readme.lines) {
    const code = codeOf(line);
    // A flag begins a word; `--` alone, and -3 or -x of a shell command, are none.
    for (const [, name] of code.matchAll(/(?<![^\s[(|])--?([a-z][\w-]+)/g)) {
      count++;
      const known = /\btulled\b/.test(code) ? ofTulled.has(name) : ofTulled.has(name) || ofLab.has(name);
      if (!known) wrong.push(`${line.where}: --${name}`);
    }
  }
  t.ok(count > 20, `${count} flags were found`);
  t.same(wrong, []);
});

t.test("flanneld's flags that are refused are the ones that the README names", async t => {
  const lines = section(readme, 'tulled for people who know flanneld');
  const text = lines.map(line => line.text).join('\n');
  const paragraph = text.split('\n\n').filter(part => part.startsWith('Refused'));
  t.equal(paragraph.length, 1, 'one paragraph says which are refused');
  const named = [...paragraph[0].matchAll(/`-([\w-]+)`/g)].map(match => match[1]);
  const unsupported = flags.filter(flag => flag.unsupported !== undefined).map(flag => flag.name);
  t.same([...named].sort(), [...unsupported].sort());
});

t.test('the JSON of the README is that of the lab', async t => {
  // There it is one line; here it is broken for readers.
  const json = /^```json\n(.*?)\n```$/ms.exec(read('README.md'))?.[1] ?? 'null';
  const { ok, nodes, pods, ping, tcp } = JSON.parse(json);
  t.equal(ok, true);
  for (const node of nodes) t.hasStrict(Object.keys(node), ['name', 'publicIp', 'subnet', 'mtu']);
  for (const pod of pods) t.hasStrict(Object.keys(pod), ['name', 'node', 'ip']);
  t.match(ping, { sent: Number, received: Number, rttMs: Number });
  t.match(tcp, { gbps: Number, underlayGbps: Number });
});

t.test('every drop reason is explained, and no other', async t => {
  const lines = section(openDocument('docs/architecture.md'), 'Why a packet is dropped');
  t.same(firstCells(lines), Object.keys(DROP_REASONS), 'in the order of lib/datapath/counters.ts');
});

t.test('every dependency has its reason, and no other', async t => {
  const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string> | undefined>;
  const kinds = { dependencies: 'runtime', optionalDependencies: 'optional', devDependencies: 'development' };
  const expected = Object.entries(kinds).flatMap(([field, kind]) =>
    Object.keys(manifest[field] ?? {}).map(name => `${name} ${kind}`),
  );
  const lines = section(openDocument('docs/dependencies.md'), 'From npm');
  const found = lines.flatMap(
    ({ text }) =>
      text
        .match(/^\| `([^`]+)` \| (\w+) \|/)
        ?.slice(1, 3)
        .join(' ') ?? [],
  );
  t.same(found.sort(), expected.sort());
});

t.test('the glossary is in order, short and linked', async t => {
  const glossary = openDocument('docs/glossary.md');
  const terms = headings(glossary).slice(1);
  const plain = (term: string): string => term.toLowerCase().replace(/[^a-z]/g, '');
  t.ok(terms.length > 60, `${terms.length} terms were found`);
  t.same(
    terms,
    [...terms].sort((a, b) => (plain(a) < plain(b) ? -1 : 1)),
    'alphabetical',
  );
  const entries = terms.map(term => ({
    term,
    text: section(glossary, term)
      .map(line => line.text)
      .join('\n')
      .trim(),
  }));
  const isLinked = (text: string): boolean => /\]\(|`(lib|etcd|docs|test)\//.test(text);
  t.same(
    entries.filter(({ text }) => !isLinked(text)).map(({ term }) => term),
    [],
    'an entry leads on: to the code, to another entry, to the kernel',
  );
  t.same(
    entries.filter(({ text }) => text === '' || text.length > 320).map(({ term }) => term),
    [],
    'an entry is a sentence or two',
  );
});

t.test('decisions are numbered, short, and say what was rejected', async t => {
  const files = documents.map(({ path }) => path).filter(path => path.startsWith('docs/decisions/'));
  t.ok(files.length > 0);
  for (const [i, path] of files.entries()) {
    const number = i + 1;
    t.match(path, new RegExp(`/${String(number).padStart(4, '0')}-[a-z0-9-]+\\.md$`));
    const text = read(path);
    t.match(text, new RegExp(`^# ${number}\\. `), `${path} begins with its number`);
    for (const word of ['**What.**', '**Why.**', '**Rejected.**']) t.ok(text.includes(`\n${word}`), `${path}: ${word}`);
    t.ok(text.split('\n').length <= 30, `${path} is about half a page`);
  }
});

/** East Asian and combining characters do not occur; everything that we draw with is one column wide. */
const widthOf = (text: string): number => [...text].length;

t.test('drawings and tables line up', async t => {
  const uneven: string[] = [];
  for (const { lines } of documents) {
    for (const [i, { text, code, where }] of lines.entries()) {
      // Each corner or junction of a box has what it needs above and below it.
      const [above, below] = [lines[i - 1]?.text ?? '', lines[i + 1]?.text ?? ''];
      for (const [column, character] of code ? [...text].entries() : []) {
        const up = [...above][column] ?? ' ';
        const down = [...below][column] ?? ' ';
        if ('└┘┴'.includes(character) && !'│┌┐├┤┬┼╤▲╪'.includes(up))
          uneven.push(`${where}: ${character} at ${column + 1}`);
        if ('┌┐┬╤'.includes(character) && !'│└┘├┤┴┼▼╪'.includes(down))
          uneven.push(`${where}: ${character} at ${column + 1}`);
      }
    }
  }
  t.same(uneven, [], 'every corner joins a line');

  const bars = (text: string): string => [...text].flatMap((c, i) => (c === '|' ? [i] : [])).join();
  const crooked = readme.lines.filter(
    ({ text, code }, i) =>
      !code &&
      text.startsWith('|') &&
      readme.lines[i - 1].text.startsWith('|') &&
      bars(text) !== bars(readme.lines[i - 1].text),
  );
  t.same(
    crooked.map(({ where }) => where),
    [],
    'the columns of a table are equally wide',
  );
});

t.test('lines of prose fit a terminal, and code in them stays in one line', async t => {
  const prose = allLines.filter(({ text }) => !text.startsWith('|'));
  const where = (lines: Line[]): string[] => lines.map(line => line.where);
  t.same(where(prose.filter(({ text }) => widthOf(text) > 140)), [], 'too long');
  t.same(where(prose.filter(({ text, code }) => !code && text.split('`').length % 2 === 0)), [], 'an open backtick');
});
