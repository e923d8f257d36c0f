// The JSON reader of tulle-cni against JSON.parse, under AddressSanitizer: both accept the same texts and find the same
// values.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { below, pick, prng, testSeed } from '../support/prng.ts';
import { buildSanitized } from './tulle-cni-support.ts';

const folder = buildSanitized();
const skip = folder === undefined ? 'SKIPPED: no libasan here (it comes with gcc)' : false;
const KEYS = ['cniVersion', 'name', 'socket'];
/** As cmd/tulle-cni/client.h. */
const [ABSENT, TEXT, LONG, OTHER] = [0, 1, 2, 3];
const LONGEST = 255;
const HIDDEN = 'hidden';

/** What the C program says about each text, a line each. */
function scan(texts: readonly Buffer[]): string[] {
  const input = Buffer.concat(
    texts.flatMap(text => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(text.length);
      return [length, text];
    }),
  );
  const { status, stdout, stderr } = spawnSync(join(folder ?? '', 'json-scan'), {
    input,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1' },
  });
  if (status !== 0) throw new Error(`json-scan ended with ${status}: ${stderr.slice(0, 4000)}`);
  return stdout.trimEnd().split('\n');
}

/** A null takes nothing away from an earlier pair of the same key, as in Go; but JSON.parse tells of the later one only. */
const hides = (text: Buffer, raw: object): boolean =>
  Object.entries(raw).some(([name, value]) => value === null && text.toString().split(JSON.stringify(name)).length > 2);

/** The same by JSON.parse: undefined where it refuses the text, 'hidden' where it does not tell all. */
function expected(text: Buffer): string | undefined {
  let raw: unknown;
  try {
    raw = JSON.parse(text.toString());
  } catch {
    return undefined;
  }
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return undefined;
  if (hides(text, raw)) return HIDDEN;
  const fields = KEYS.map(key => {
    const values = Object.entries(raw).filter(
      ([name, value]) => name.length === key.length && name.toLowerCase() === key.toLowerCase() && value !== null,
    );
    const value: unknown = values.at(-1)?.[1];
    if (value === undefined) return `${ABSENT}:`;
    if (typeof value !== 'string') return `${OTHER}:`;
    const bytes = Buffer.from(value);
    return bytes.length > LONGEST ? `${LONG}:` : `${TEXT}:${bytes.toString('hex')}`;
  });
  return fields.join(' ');
}

function compare(t: Test, texts: readonly Buffer[]): { accepted: number } {
  const lines = scan(texts);
  t.equal(lines.length, texts.length);
  let accepted = 0;
  for (const [i, line] of lines.entries()) {
    const [offset, ...fields] = line.split(' ');
    const wanted = expected(texts[i]);
    if (wanted !== undefined) accepted++;
    const isSame = wanted === HIDDEN || fields.join(' ') === wanted;
    const good = wanted === undefined ? offset !== '-1' : offset === '-1' && isSame;
    if (!good) t.fail(`${JSON.stringify(texts[i].toString())}: C says ${line}, JSON.parse ${wanted ?? 'refuses it'}`);
  }
  return { accepted };
}

t.test('by hand', { skip }, async t => {
  const deep = (depth: number): string => `{"a":${'['.repeat(depth)}${']'.repeat(depth)},"name":"x"}`;
  const good = [
    '{}',
    ' \t\r\n{ "name" : "a" } \n',
    '{"name":"a","NAME":"b","nAmE":null}',
    '{"na\\u006de":"\\u0041\\ud83d\\ude00\\ud83d\\n\\ud83d\\u0041\\udc00"}',
    '{"socket":{"socket":"/inner"},"x":{"name":"inner"}}',
    '{"socket":["a"],"name":5,"cniVersion":true}',
    `{"name":"${'x'.repeat(255)}","socket":"${'x'.repeat(256)}"}`,
    `{"name":"${'é'.repeat(127)}","socket":"${'é'.repeat(128)}"}`,
    '{"n":[0,-0,1.5,1e5,1E-5,-1.25e+10,true,false,null,"",{},[]]}',
    '{"name":"a\\u0000b"}',
    `{"${'n'.repeat(500)}":1}`,
    deep(511),
  ];
  const bad = [
    '',
    ' ',
    '{',
    '}',
    '[]',
    'null',
    '"name"',
    '{}{}',
    '{} x',
    '\ufeff{}',
    '{"name"}',
    '{"name":}',
    '{"name":"a",}',
    '{,}',
    "{'name':'a'}",
    '{name:"a"}',
    '{"a":[1,]}',
    '{"a":[,1]}',
    '{"a":[1 2]}',
    '{"a":[}]',
    '{"a":01}',
    '{"a":1.}',
    '{"a":.5}',
    '{"a":+1}',
    '{"a":-}',
    '{"a":1e}',
    '{"a":0x1}',
    '{"a":NaN}',
    '{"a":tru}',
    '{"a":"\\x"}',
    '{"a":"\\u12g4"}',
    '{"a":"\\u123"}',
    '{"a":"\\',
    '{"a":"\t"}',
    '{"a":"unended',
    '{"a":"\\ud83d\\u"}',
  ];
  t.equal(
    compare(
      t,
      good.map(text => Buffer.from(text)),
    ).accepted,
    good.length,
  );
  t.equal(
    compare(
      t,
      bad.map(text => Buffer.from(text)),
    ).accepted,
    0,
  );
  const [line] = scan([Buffer.from(deep(512))]);
  t.not(line.split(' ')[0], '-1', 'deeper than anybody needs');
});

t.test('at random', { skip }, async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next = prng(seed);
  const word = (): string =>
    pick(next, ['name', 'NAME', 'socket', 'cniVersion', 'CNIVERSION', 'names', '', 'é', 'a"b', '\\', '\u0001', '😀']);
  const value = (depth: number): unknown => {
    switch (below(next, depth > 4 ? 5 : 7)) {
      case 0:
        return word().repeat(below(next, 40));
      case 1:
        return (next() - 2 ** 31) / pick(next, [1, 1000, 1e-10]);
      case 2:
        return pick(next, [true, false]);
      case 3:
        return null;
      case 4:
        return word();
      case 5:
        return Array.from({ length: below(next, 4) }, () => value(depth + 1));
      default:
        return Object.fromEntries(Array.from({ length: below(next, 5) }, () => [word(), value(depth + 1)]));
    }
  };
  const pieces = [
    '"',
    '\\',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    'u',
    '\\u',
    '0',
    'e',
    '-',
    '.',
    ' ',
    '\n',
    '\0',
    'null',
    '\\ud800',
  ];
  const texts = Array.from({ length: 20_000 }, () => {
    const object = Object.fromEntries(Array.from({ length: below(next, 6) }, () => [word(), value(0)]));
    let text = JSON.stringify(object, null, pick(next, [0, 2, '\t']));
    for (let spoiled = below(next, 4); spoiled > 0; spoiled--) {
      const at = below(next, text.length + 1);
      const cut = below(next, 3);
      text = text.slice(0, at) + (below(next, 3) === 0 ? '' : pick(next, pieces)) + text.slice(at + cut);
    }
    return Buffer.from(below(next, 50) === 0 ? text.slice(0, below(next, text.length + 1)) : text);
  });
  const { accepted } = compare(t, texts);
  t.ok(accepted > 2000 && accepted < 18_000, `${accepted} of ${texts.length} were JSON objects`);
});
