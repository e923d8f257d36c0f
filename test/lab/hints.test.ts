import t from 'tap';
import { hintsFor, programName } from '../../lib/lab/hints.ts';

t.test('how the program is called', async t => {
  t.equal(programName('/usr/bin/tulle', '/root'), 'tulle');
  t.equal(programName('/src/tulle/dist/cmd/tulle.js', '/src/tulle'), 'node dist/cmd/tulle.js');
  t.equal(programName('/src/tulle/dist/cmd/tulle.js', '/src/tulle/dist'), 'node cmd/tulle.js');
  t.equal(programName('/src/tulle/dist/cmd/tulle.js', '/root'), 'node /src/tulle/dist/cmd/tulle.js');
});

t.test('only programs that are there', async t => {
  const hints = (lab: string, ...there: string[]) =>
    hintsFor(lab, 'pod1', '10.42.2.2', '/run/tulle/lab/lab', name =>
      there.includes(name) ? `/bin/${name}` : undefined,
    ).join('\n');
  t.match(
    hints('lab', 'ping', 'ip'),
    /lab exec pod1 -- ping -c 3 10\.42\.2\.2\n.* lab exec node1 -- ip -brief address/,
  );
  t.notMatch(hints('lab'), /ping|ip -brief/);
  t.match(hints('lab'), /capture --socket \/run\/tulle\/lab\/lab\/node1\/tulled\.sock --print\n/);
  t.match(hints('other'), /lab exec --name other node1 -- cat[\s\S]*lab down --name other$/);
});
