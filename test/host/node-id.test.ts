import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { nodeId } from '../../lib/host/node-id.ts';

const directory = mkdtempSync(join(tmpdir(), 'tulle-node-id-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(directory, `state${count++}`);
const MACHINE = '0123456789abcdef0123456789abcdef';

t.test('one that was given is taken as it is', async t => {
  t.equal(nodeId({ given: 'node-1.rack_2', stateDirectory: fresh() }), 'node-1.rack_2');
  for (const given of ['', 'a b', 'a/b', 'x'.repeat(65), 'ä']) {
    t.throws(() => nodeId({ given, stateDirectory: fresh() }), { code: 'bad-node-id' }, given);
  }
});

t.test("the machine's id is hashed, never shown", async t => {
  const machineIdFile = join(directory, 'machine-id');
  writeFileSync(machineIdFile, `${MACHINE}\n`);
  const stateDirectory = fresh();
  const id = nodeId({ stateDirectory, machineIdFile });
  t.match(id, /^[0-9a-f]{32}$/);
  t.not(id, MACHINE);
  t.equal(nodeId({ stateDirectory: fresh(), machineIdFile }), id, 'the same every time');
  writeFileSync(machineIdFile, `${MACHINE.replace('0', 'f')}\n`);
  t.not(nodeId({ stateDirectory, machineIdFile }), id);
  t.throws(() => readdirSync(stateDirectory), { code: 'ENOENT' }, 'nothing had to be kept');
});

t.test('without one, a random id is made and kept', async t => {
  const machineIdFile = join(directory, 'odd-machine-id');
  const ids = ['', 'uninitialized\n', undefined].map(content => {
    if (content === undefined) rmSync(machineIdFile);
    else writeFileSync(machineIdFile, content);
    const stateDirectory = fresh();
    const id = nodeId({ stateDirectory, machineIdFile });
    t.equal(nodeId({ stateDirectory, machineIdFile }), id, 'kept');
    t.same(readdirSync(stateDirectory), ['node-id'], 'no temporary file stays');
    t.equal(readFileSync(join(stateDirectory, 'node-id'), 'utf8'), `${id}\n`);
    writeFileSync(machineIdFile, MACHINE);
    t.equal(nodeId({ stateDirectory, machineIdFile }), id, 'also when the machine gets its id later');
    return id;
  });
  t.equal(new Set(ids).size, ids.length);
});

t.test('a spoiled file and a directory that cannot be made are told in one line', async t => {
  const machineIdFile = join(directory, 'no-such-file');
  const stateDirectory = mkdtempSync(join(directory, 'spoiled-'));
  writeFileSync(join(stateDirectory, 'node-id'), 'something else\n');
  t.throws(() => nodeId({ stateDirectory, machineIdFile }), { code: 'bad-node-id', message: /node-id .*remove it$/ });
  t.same(readdirSync(stateDirectory), ['node-id']);
  chmodSync(stateDirectory, 0o700);
  const below = join(stateDirectory, 'node-id', 'x');
  t.throws(() => nodeId({ stateDirectory: below, machineIdFile }), {
    code: /ENOTDIR|EEXIST/,
    message: /^cannot keep a node id in .*: name|^cannot keep a node id in /,
  });
});
