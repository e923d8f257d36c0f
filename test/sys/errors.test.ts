import { constants } from 'node:os';
import t from 'tap';
import { errnoName, errnoText, SysError } from '../../lib/sys/sys.ts';

t.test('errno names', async t => {
  t.equal(errnoName(1), 'EPERM');
  t.equal(errnoName(-1), 'EPERM');
  t.equal(errnoName(11), 'EAGAIN');
  t.equal(errnoName(77), 'EBADFD');
  t.equal(errnoName(95), 'EOPNOTSUPP');
  t.equal(errnoName(105), 'ENOBUFS');
  t.equal(errnoName(4095), 'E4095');
  for (const errno of Object.values(constants.errno)) t.match(errnoName(errno), /^E[A-Z2]/);
});

t.test('errno sentences', async t => {
  t.equal(errnoText(13), 'permission denied');
  t.equal(errnoText(-77), 'file descriptor in bad state');
  t.equal(errnoText(4095), 'E4095');
});

t.test('SysError', async t => {
  const plain = new SysError(13, 'open /dev/net/tun');
  t.match(plain, { code: 'EACCES', errno: 13, syscall: 'open /dev/net/tun', name: 'SysError' });
  t.equal(plain.message, 'open /dev/net/tun: EACCES (permission denied)');
  const full = new SysError(-16, 'ioctl TUNSETIFF', { subject: 'tulle0', hint: 'close the other' });
  t.equal(full.message, 'ioctl TUNSETIFF tulle0: EBUSY (resource busy or locked): close the other');
  t.equal(full.errno, 16);
});
