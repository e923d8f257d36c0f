/** An address plugin for tests: a shell script that keeps one file a reservation and writes down how it was called. */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface FakeIpam {
  /** For CNI_PATH. */
  path: string[];
  /** The ids that hold an address. */
  reservations(): string[];
  /** "ADD one" of every call. */
  calls(): string[];
  /** CNI_ARGS of every call. */
  args(): string[];
  /** What it was given on stdin the last time. */
  input(): Record<string, unknown>;
  /** Lets calls of a command fail. */
  fail(command: string, fails?: boolean): void;
}

const SCRIPT = `#!/bin/sh
cd "$(dirname "$0")/state" || exit 1
cat > input
echo "$CNI_COMMAND $CNI_CONTAINERID" >> calls
echo "$CNI_ARGS" >> args
if [ -e "fail-$CNI_COMMAND" ]; then
  echo '{"cniVersion":"1.1.0","code":100,"msg":"told to fail","details":"by the test"}'
  exit 1
fi
case "$CNI_COMMAND" in
  ADD)
    : > "held/$CNI_CONTAINERID"
    echo '{"cniVersion":"1.1.0","ips":[{"address":"10.77.0.2/24","gateway":"10.77.0.1"}],"routes":[{"dst":"10.0.0.0/8"}],"dns":{"nameservers":["10.77.0.53"]}}' ;;
  DEL) rm -f "held/$CNI_CONTAINERID" ;;
  CHECK) [ -e "held/$CNI_CONTAINERID" ] ;;
esac
`;

export function makeFakeIpam(directory: string): FakeIpam {
  const folder = join(directory, 'bin');
  const state = join(folder, 'state');
  mkdirSync(join(state, 'held'), { recursive: true });
  writeFileSync(join(folder, 'fake-ipam'), SCRIPT);
  chmodSync(join(folder, 'fake-ipam'), 0o755);
  const lines = (name: string): string[] =>
    existsSync(join(state, name)) ? readFileSync(join(state, name), 'utf8').split('\n').slice(0, -1) : [];
  return {
    path: ['/nowhere', folder],
    reservations: () => readdirSync(join(state, 'held')).sort(),
    calls: () => lines('calls'),
    args: () => lines('args'),
    input: () => JSON.parse(readFileSync(join(state, 'input'), 'utf8')),
    fail: (command, fails = true) => {
      const file = join(state, `fail-${command}`);
      if (fails) writeFileSync(file, '');
      else rmSync(file, { force: true });
    },
  };
}
