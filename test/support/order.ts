/**
 * The order in which the test files run: the long ones first, so that none of them is still at work when everything else is
 * done and the other processors have nothing left to do. Only the order of magnitude counts, so there is no record of times
 * that would have to be kept; a name that is no file's fails a test.
 */

/** Files of ten seconds and more, the longest first; the others take two or three. */
export const LONG: readonly string[] = [
  'cmd/tulle-lab',
  'cmd/tulle-rootless',
  'deploy/package',
  'deploy/image',
  'cmd/tulle-lab-fault',
  'etcd/client',
  'cmd/tulle-lease',
  'lab/lesson-2',
  'etcd/cluster',
  'model/lease-simulation',
  'lab/page',
  'sys/sanitize',
  'cmd/tulle-doctor',
  'etcd/race',
  'lab/lesson-1',
  'lab/lesson-3',
  'lab/lesson-4',
  'lab/lesson-5',
  'lab/lesson-6',
  'lab/lesson-7',
];

/** By these names ("cmd/tulle-lab"), the rest in alphabetical order behind them. */
export function longestFirst(names: readonly string[]): string[] {
  const place = (name: string): number => {
    const found = LONG.indexOf(name);
    return found < 0 ? LONG.length : found;
  };
  return [...names].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
}
