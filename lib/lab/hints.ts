/** What to type next: commands that work on this machine, as they must be typed here. */
import { basename, relative } from 'node:path';
import { findOnPath } from './spawn.ts';

/** How this program is started: "tulle" when it was installed, else node and the path of the compiled file. */
export function programName(path = process.argv[1] ?? 'tulle', cwd = process.cwd()): string {
  if (basename(path) === 'tulle') return 'tulle';
  const near = relative(cwd, path);
  return `node ${near.startsWith('..') ? path : near}`;
}

/** `find` says where a program is, or that there is none: not every machine has ping or ip. */
export function hintsFor(
  lab: string,
  pod: string,
  peerAddress: string,
  directory: string,
  find: (name: string) => string | undefined = findOnPath,
): string[] {
  const name = lab === 'lab' ? '' : ` --name ${lab}`;
  const tulle = `${programName()} lab`;
  const inside = (where: string, command: string): string => `${tulle} exec${name} ${where} -- ${command}`;
  return [
    ...(find('ping') === undefined ? [] : [inside(pod, `ping -c 3 ${peerAddress}`)]),
    find('ip') === undefined ? inside('node1', 'cat /proc/net/route') : inside('node1', 'ip -brief address'),
    inside('node1', 'cat /proc/net/dev'),
    `cat ${directory}/node1/tulled.log`,
    `${programName()} capture --socket ${directory}/node1/tulled.sock --print`,
    `${tulle} down${name}`,
  ];
}
