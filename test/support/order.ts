/**
 * The order in which the test files run: the long ones first, so that none of them is still at work when everything else is
 * done and the other processors have nothing left to do. Only the order of magnitude counts, so there is no record of times
 * that would have to be kept; a name that is no file's fails a test.
 */

/** The longest files, a quarter of a minute and more, the longest first. */
export const LONG: readonly string[] = [
  'cmd/tulle-lab',
  'model/lease-simulation',
  'deploy/image',
  'lab/page',
  'cmd/tulled-kube',
  'deploy/package',
  'etcd/cluster',
  'cmd/tulle-lab-fault',
  'cmd/tulle-rootless',
  'lab/lesson-3',
  'etcd/race',
  'daemon/probing',
  'cmd/tulle-status',
  'etcd/client',
  'etcd/defects',
  'cmd/tulle-cni',
  'daemon/tracing',
  'lab/lesson-4',
  'lab/lesson-7',
  'cmd/tulled',
  'cmd/tulle-lease',
  'lab/lesson-2',
  'sys/sanitize',
  'cmd/tulled-etcd',
  'cmd/tulled-cni-kill',
  'etcd/manager',
  'cmd/tulle-doctor',
  'lab/lesson-6',
  'lab/lesson-5',
  'lab/lesson-1',
];

/** By these names ("cmd/tulle-lab"), the rest in alphabetical order behind them. */
export function longestFirst(names: readonly string[]): string[] {
  const place = (name: string): number => {
    const found = LONG.indexOf(name);
    return found < 0 ? LONG.length : found;
  };
  return [...names].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
}
