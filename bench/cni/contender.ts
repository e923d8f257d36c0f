/** Two plugins on two hosts of one machine: Debian's bridge with host-local, and tulle-cni with its daemon. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AttachmentStore } from '../../lib/cni/store.ts';
import { program, spawnIn } from '../../lib/lab/spawn.ts';
import { silentLogger } from '../../lib/util/log.ts';
import type { Job, Launcher } from './launcher.ts';

export interface Network {
  name: string;
  bridge: string;
  /** CIDR of the pool. */
  subnet: string;
  masquerade: boolean;
}

export interface Call {
  command: 'ADD' | 'DEL';
  network: Network;
  containerId: string;
  netns: string;
}

export interface Contender {
  readonly name: 'reference' | 'tulle';
  /**
   * Makes the calls, `parallel` at once, and gives the milliseconds of each from exec to exit and of all of them together.
   * @throws Error with the plugin's answer when one fails
   */
  run(calls: readonly Call[], parallel: number): { each: number[]; all: number };
  /** As if `count` addresses of the network were taken; `netns` exists. Before the first call for the network. */
  fill(network: Network, count: number, netns: string): void;
  close(): Promise<void>;
}

type Variables = Readonly<Record<string, string>>;

interface Plugin {
  file: string;
  /** Beside what CNI wants. */
  environment: Variables;
  /** Merged into the configuration. */
  config(network: Network): Record<string, unknown>;
  /** CNI_PATH */
  folder: string;
}

function jobOf({ file, config, folder, environment }: Plugin, call: Call): Job {
  const { command, network, containerId, netns } = call;
  const input = JSON.stringify({
    cniVersion: '0.4.0',
    name: network.name,
    bridge: network.bridge,
    isGateway: true,
    ipMasq: network.masquerade,
    ...config(network),
  });
  const variables = {
    ...environment,
    CNI_COMMAND: command,
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netns,
    CNI_IFNAME: 'eth0',
    CNI_PATH: folder,
  };
  return { file, input, environment: variables };
}

/**
 * @param folder holds bridge and host-local
 * @param tools variables with which it finds iptables
 */
export function openReference(
  launcher: Launcher,
  host: string,
  folder: string,
  directory: string,
  tools: Variables,
): Contender {
  const dataDir = join(directory, 'host-local');
  const config = ({ subnet }: Network) => ({ type: 'bridge', ipam: { type: 'host-local', subnet, dataDir } });
  const plugin = { file: join(folder, 'bridge'), config, folder, environment: tools };
  return {
    name: 'reference',
    run: (calls, parallel) =>
      launcher.run(
        host,
        calls.map(call => jobOf(plugin, call)),
        parallel,
      ),
    fill({ name, subnet }, count) {
      const place = join(dataDir, name);
      mkdirSync(place, { recursive: true });
      for (const address of addresses(subnet, count)) writeFileSync(join(place, address), `taken-${address}\r\neth0`);
      writeFileSync(join(place, 'last_reserved_ip.0'), addresses(subnet, count)[count - 1]);
    },
    close: async () => {},
  };
}

/** @param tools variables with which the daemon finds nft and iptables */
export async function openTulle(
  launcher: Launcher,
  host: string,
  directory: string,
  tools: Variables,
): Promise<Contender> {
  const socket = join(directory, 'cni.sock');
  const dataDir = join(directory, 'tulle');
  const args = ['--cni-only', '--control-socket=none', `--cni-socket=${socket}`, `--cni-data-dir=${dataDir}`];
  let daemon: ReturnType<typeof spawnIn> | undefined;
  let text = '';
  const start = async (): Promise<void> => {
    const child = spawnIn(host, process.execPath, [program('cmd/tulled.js'), ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...tools },
    });
    daemon = child;
    text = '';
    await new Promise<void>((resolve, reject) => {
      child.stderr!.setEncoding('utf8').on('data', chunk => {
        text += chunk;
        if (/ ready/.test(text)) resolve();
      });
      child.on('exit', () => reject(new Error(`tulled ended: ${text}`)));
    });
  };
  const stop = async (): Promise<void> => {
    const child = daemon;
    daemon = undefined;
    if (child === undefined || child.exitCode !== null) return;
    child.removeAllListeners('exit');
    await new Promise(resolve => {
      child.once('exit', resolve);
      child.kill('SIGTERM');
    });
  };
  await start();
  const config = ({ subnet }: Network) => ({ type: 'tulle-cni', socket, ipam: { subnet } });
  const plugin = { file: program('cmd/tulle-cni'), config, folder: program('cmd'), environment: tools };
  return {
    name: 'tulle',
    run: (calls, parallel) =>
      launcher.run(
        host,
        calls.map(call => jobOf(plugin, call)),
        parallel,
      ),
    // The daemon opens a network's record at its first request and holds it: this goes before that.
    fill({ name, subnet }, count, netns) {
      const store = AttachmentStore.open(dataDir, name, silentLogger);
      const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
      for (const address of addresses(subnet, count)) {
        const key = { containerId: `taken-${address}`, ifname: 'eth0' };
        store.begin({ ...key, netns, boot, hostLink: 'none', ips: [address] });
        store.done(key);
      }
      store.close();
    },
    close: stop,
  };
}

/** The first `count` addresses of a /16 behind its gateway. */
function addresses(subnet: string, count: number): string[] {
  const [a, b] = subnet.split('.');
  return Array.from({ length: count }, (_, i) => `${a}.${b}.${(i + 2) >>> 8}.${(i + 2) & 255}`);
}
