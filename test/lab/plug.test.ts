import t from 'tap';
import { addressIn } from '../../lib/lab/plug.ts';

t.test("the address in a plugin's answer, or one line that says why there is none", async t => {
  const result = { cniVersion: '1.0.0', ips: [{ address: '10.42.7.2/24' }] };
  t.equal(addressIn('pod1', 'exit code 0', JSON.stringify(result), ''), '10.42.7.2');
  const refused = (ending: string, stdout: string, stderr: string, message: string): void => {
    t.throws(() => addressIn('pod1', ending, stdout, stderr), { code: 'cni', message });
  };
  const error = JSON.stringify({ cniVersion: '1.0.0', code: 11, msg: 'no lease yet' });
  refused('exit code 1', error, '', 'pod1 could not be plugged in: no lease yet');
  refused('SIGKILL', '', 'what?\n', 'pod1 could not be plugged in: SIGKILL: what?');
  refused('exit code 0', '', '', 'pod1 could not be plugged in: exit code 0: it said nothing');
  refused('exit code 0', '{}', '', 'pod1 could not be plugged in: a result without an address: {}');
});
