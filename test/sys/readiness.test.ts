import t from 'tap';
import * as sys from '../../lib/sys/sys.ts';
import { arena, fixture, run } from './support.ts';

t.test('poll reports what is ready, and nothing else', async t => {
  const { id, words } = arena(4096);
  const quiet = sys.openEventFd();
  const awake = sys.openEventFd();
  sys.wake(awake);
  words.set([quiet, sys.POLLIN, 77, awake, sys.POLLIN, 77, awake, sys.POLLOUT, 77]);
  t.equal(sys.poll(id, 0, 3, 1000), 2);
  t.same([words[2], words[5], words[8]], [0, sys.POLLIN, sys.POLLOUT]);
  sys.wake(awake);
  t.equal(sys.drain(awake), 2, 'wakes are counted');
  t.equal(sys.drain(awake), 0);
  t.equal(sys.poll(id, 0, 2, 0), 0);
  t.same([words[2], words[5]], [0, 0]);
  t.equal(sys.poll(id, 0, 0, 1), 0, 'an empty table is a short sleep');
  sys.close(quiet);
  sys.close(awake);
});

t.test('a closed or unknown handle is POLLNVAL at once', async t => {
  const { id, words } = arena(4096);
  const open = sys.openEventFd();
  const closed = sys.openEventFd();
  sys.close(closed);
  words.set([open, sys.POLLIN, 0, closed, sys.POLLIN, 0, 0, sys.POLLIN, 0]);
  t.equal(sys.poll(id, 0, 3, 60_000), 2);
  t.same([words[2], words[5], words[8]], [0, sys.POLLNVAL, sys.POLLNVAL]);
  sys.close(open);
});

t.test('a closed handle is closed at once, though a watch still holds its descriptor', async t => {
  const event = sys.openEventFd();
  sys.wake(event);
  const stop = sys.pollReadable(event, () => t.fail('called after close'));
  sys.close(event);
  t.equal(sys.drain(event), -9);
  t.throws(() => sys.close(event), { code: 'EBADF' });
  t.throws(() => sys.pollReadable(event, () => {}), { code: 'EBADF' });
  t.equal(sys.handleCount(), 1, 'the descriptor is still there');
  stop();
  t.equal(sys.handleCount(), 0);
});

t.test('poll checks its table', async t => {
  const { id } = arena(4096);
  t.equal(sys.poll(id, 2, 1, 0), -22, 'not aligned');
  t.equal(sys.poll(id, 0, 257, 0), -22, 'too many');
  t.equal(sys.poll(id, 0, -1, 0), -22);
  t.equal(sys.poll(id, 4088, 1, 0), -14, 'over the end');
  t.equal(sys.poll(id, -4, 1, 0), -14);
  t.equal(sys.poll(id + 1, 0, 1, 0), -22, 'no such arena');
});

t.test('an event counter that is full stays readable, and waking it is no error', async t => {
  const event = sys.openEventFd();
  for (let i = 0; i < 1000; i++) sys.wake(event);
  t.equal(sys.drain(event), 1000);
  sys.close(event);
});

t.test('pollReadable', async t => {
  const { status, stdout, stderr } = run(process.execPath, [fixture('watch')]);
  t.equal(status, 0, stderr);
  t.equal(stdout.trim(), 'the loop may end now');
  t.throws(() => sys.pollReadable(sys.openEventFd(), undefined as unknown as () => void), { code: 'EINVAL' });
});
