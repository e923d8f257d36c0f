import { readFileSync } from 'node:fs';
import t from 'tap';
import {
  machineCpu,
  ownCpu,
  parseMachineCpu,
  parsePeakMb,
  parseProcessCpu,
  parseResidentMb,
  peakMb,
  processCpu,
} from '../../bench/cpu.ts';
import { identify } from '../../lib/lab/process.ts';

t.test('what /proc says', async t => {
  // A command may hold blanks and parentheses; utime is 250, stime 50 ticks.
  const stat = '42 (a) b) (c) S 1 42 42 0 -1 4194560 9 0 0 0 250 50 7 8 20 0 5 0 1234 100 200';
  t.equal(parseProcessCpu(stat), 3);
  t.equal(
    parseMachineCpu('cpu  100 20 30 4000 50 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n'),
    1.63,
    'idle, iowait and steal are not work',
  );
  const status = 'Name:\tnode\nVmHWM:\t  131072 kB\nVmRSS:\t   65536 kB\n';
  t.equal(parsePeakMb(status), 128);
  t.equal(parseResidentMb(status), 64);
});

t.test('our own process', async t => {
  const self = identify(process.pid)!;
  const before = [processCpu([self]), machineCpu()];
  const end = performance.now() + 10_000;
  while (processCpu([self]) - before[0] < 0.1 && performance.now() < end) readFileSync('/proc/self/stat');
  t.ok(processCpu([self]) - before[0] >= 0.1, 'busy time is counted');
  t.ok(machineCpu() - before[1] >= 0.08, 'also among the machine');
  t.ok(Math.abs(processCpu([self]) - ownCpu()) < 0.5, `${processCpu([self])} s by /proc, ${ownCpu()} s by getrusage`);
  t.ok(peakMb([self])! > 20);
  t.equal(peakMb([]), null);
});
