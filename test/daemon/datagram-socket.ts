/**
 * A real Unix datagram socket for a test, as a service manager has one. Node.js cannot open one, so a few lines of Perl,
 * which every Debian has, do: they print each datagram as a line of hexadecimal digits.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';

export const noDatagrams: string | false =
  spawnSync('perl', ['-MSocket', '-e', '1']).status !== 0 && 'SKIPPED: no perl here to open a datagram socket with';

const PROGRAM = `
use Socket; $| = 1;
my $name = $ARGV[0]; $name =~ s/^\\@/\\0/;
my $s;
socket($s, AF_UNIX, SOCK_DGRAM, 0) && bind($s, pack_sockaddr_un($name)) or die $!;
print "bound\\n";
while (defined recv($s, my $text, 65536, 0)) { print unpack("H*", $text), "\\n" }
`;

export interface DatagramSocket {
  /** All datagrams so far. */
  readonly received: readonly string[];
  /** Resolves when one is there that holds the text; rejects after 30 s. */
  until(text: string): Promise<string>;
}

export async function openDatagramSocket(
  t: { teardown(action: () => void): void },
  name: string,
): Promise<DatagramSocket> {
  const child = spawn('perl', ['-e', PROGRAM, name], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const received: string[] = [];
  let buffer = '';
  let bound = false;
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    buffer += chunk;
    const lines = buffer.split('\n');
    buffer = lines.pop() ?? '';
    for (const line of lines) {
      if (bound) received.push(Buffer.from(line, 'hex').toString());
      bound = true;
    }
    child.emit('datagram');
  });
  child.on('exit', () => child.emit('datagram'));
  const wait = async (isThere: () => boolean, what: string): Promise<void> => {
    const deadline = AbortSignal.timeout(30_000);
    while (!isThere()) {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`the socket ended before ${what} came`);
      await once(child, 'datagram', { signal: deadline }).catch(() => {
        throw new Error(`${what} did not come in 30 s; came: ${JSON.stringify(received)}`);
      });
    }
  };
  await wait(() => bound, 'the socket');
  return {
    received,
    async until(text) {
      await wait(() => received.some(datagram => datagram.includes(text)), JSON.stringify(text));
      return received.find(datagram => datagram.includes(text)) as string;
    },
  };
}
