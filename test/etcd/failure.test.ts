import t from 'tap';
import { DeadlineError, failureKindOf, reasonOf, registryErrorOf } from '../../etcd/failure.ts';
import { RegistryError } from '../../lib/lease/registry.ts';

// Texts as etcd 3.4 and grpc-js 1.14 really gave them.
const refused =
  '14 UNAVAILABLE: No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:1 (2026-11-21T01:44:11.825Z). Resolution note: ';
const cases: [string, string, string][] = [
  [refused, 'away', 'connection refused'],
  [
    '14 UNAVAILABLE: No connection established. Last error: Protocol error (2026-11-21T01:44:11.825Z). Resolution note: ',
    'away',
    'it does not speak gRPC: is it an etcd, and not https://?',
  ],
  [
    '14 UNAVAILABLE: No connection established. Last error: Error: read EPIPE (2026-11-21T01:44:11.825Z). Resolution note: ',
    'away',
    'read EPIPE',
  ],
  [
    '14 UNAVAILABLE: No connection established. Last error: Error: unable to verify the first certificate. Resolution note: ',
    'away',
    'TLS: its certificate is not signed by a CA that we trust',
  ],
  ['4 DEADLINE_EXCEEDED: Deadline exceeded after 1.0s', 'away', 'no answer in time'],
  ['14 UNAVAILABLE: etcdserver: no leader', 'away', 'no leader'],
  ['16 UNAUTHENTICATED: etcdserver: invalid auth token', 'token', 'invalid auth token'],
  ['3 INVALID_ARGUMENT: etcdserver: user name is empty', 'denied', 'user name is empty'],
  ['7 PERMISSION_DENIED: etcdserver: permission denied', 'denied', 'permission denied'],
  [
    '8 RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded',
    'refused',
    'its database is full: compact and defragment it, then "etcdctl alarm disarm"',
  ],
  [
    '3 INVALID_ARGUMENT: etcdserver: duplicate key given in txn request',
    'refused',
    'duplicate key given in txn request',
  ],
  ['the watch got no answer in time', 'away', 'the watch got no answer in time'],
];

t.test('kinds and reasons', async t => {
  for (const [text, kind, reason] of cases) {
    t.equal(failureKindOf(new Error(text)), kind, text);
    t.equal(reasonOf(new Error(text)), reason, text);
  }
  t.equal(failureKindOf(new DeadlineError('x')), 'away');
});

t.test('the error of a verb', async t => {
  const error = registryErrorOf(new Error(refused), 'http://a:1, http://b:2');
  t.equal(error.code, 'unavailable');
  t.equal(error.message, 'etcd at http://a:1, http://b:2 does not answer: connection refused');
  t.equal(registryErrorOf(new Error(cases[6][0]), 'x').code, 'denied');
  const ours = new RegistryError('taken', 'x');
  t.equal(registryErrorOf(ours, 'y'), ours, 'ours passes unchanged');
});
