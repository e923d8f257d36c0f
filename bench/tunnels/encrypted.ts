/** Tunnels of Debian that always encrypt: what people run, but not the same work. */
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { TulleError } from '../../lib/util/errors.ts';
import { POD_MTU, peerOf, until, workDirectory } from '../stage.ts';
import { plugDevice, startProgramOf, type Tunnel } from './tunnel.ts';

const PORT = 5600;

/** wireguard-go puts its control socket there and nowhere else; the names are ours alone. */
const deviceOf = (node: number): string => `tb${process.pid % 1_000_000}n${node}`;
const controlSocket = (device: string): string => `/var/run/wireguard/${device}.sock`;

export const wireguardGo: Tunnel = {
  name: 'wireguard-go',
  kind: 'user',
  about: 'wireguard-go: encrypted (ChaCha20-Poly1305)',
  needs: { package: 'wireguard-go', program: 'wireguard-go' },
  clean() {
    for (const i of [1, 2]) rmSync(controlSocket(deviceOf(i)), { force: true });
    try {
      rmdirSync(dirname(controlSocket('')));
    } catch {
      // it was never made, or is not ours alone
    }
  },
  async up(stage, made) {
    const hex = (base64url: string | undefined): string => Buffer.from(base64url ?? '', 'base64url').toString('hex');
    const keys = stage.nodes.map(() => {
      const { d, x } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
      return { secret: hex(d), key: hex(x) };
    });
    for (const [i, node] of stage.nodes.entries()) {
      const device = deviceOf(i + 1);
      const program = startProgramOf(stage, made, node, 'wireguard-go', ['-f', device], {
        WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD: '1', // an old version's question
      });
      await plugDevice(stage, made, node, device);
      const peer = peerOf(stage, node);
      await until('the control socket answers', [program], () =>
        existsSync(controlSocket(device)) ? true : undefined,
      );
      await tell(
        controlSocket(device),
        `set=1
private_key=${keys[i].secret}
listen_port=${PORT}
public_key=${keys[1 - i].key}
endpoint=${peer.address}:${PORT}
allowed_ip=${peer.subnet}

`,
      );
    }
  },
};

/** WireGuard's cross-platform interface: "set=1", then keys, then an empty line; it answers "errno=0". */
async function tell(path: string, text: string): Promise<void> {
  const socket = connect(path).setEncoding('utf8').setTimeout(3000);
  socket.on('timeout', () => socket.destroy(new TulleError('program', 'wireguard-go does not answer')));
  let answer = '';
  socket.on('data', chunk => {
    answer += chunk;
    if (answer.includes('\n\n')) socket.end();
  });
  socket.write(text);
  await once(socket, 'close');
  if (!answer.includes('errno=0\n')) throw new TulleError('program', `wireguard-go refused: ${answer.trim()}`);
}

export const nebula: Tunnel = {
  name: 'nebula',
  kind: 'user',
  about: 'nebula: encrypted (AES-256-GCM)',
  needs: { package: 'nebula', program: 'nebula' },
  async up(stage, made) {
    const directory = workDirectory(stage, 'nebula');
    const sign = (...args: string[]): void => {
      const command = made.found!.path.replace(/nebula$/, 'nebula-cert');
      const { status, stderr } = spawnSync(command, args, { cwd: directory, encoding: 'utf8', timeout: 10_000 });
      if (status !== 0) throw new TulleError('program', `nebula-cert: ${stderr?.trim() || 'cannot be started'}`);
    };
    rmSync(join(directory, 'ca.crt'), { force: true });
    rmSync(join(directory, 'ca.key'), { force: true });
    sign('ca', '-name', 'bench');
    const addressOf = (i: number): string => `10.43.1.${i + 1}`;
    for (const [i, node] of stage.nodes.entries()) {
      for (const ending of ['crt', 'key']) rmSync(join(directory, `${node.name}.${ending}`), { force: true });
      sign('sign', '-name', node.name, '-ip', `${addressOf(i)}/24`, '-subnets', node.subnet);
    }
    for (const [i, node] of stage.nodes.entries()) {
      const peer = peerOf(stage, node);
      const file = (name: string): string => join(directory, name);
      const config = {
        pki: { ca: file('ca.crt'), cert: file(`${node.name}.crt`), key: file(`${node.name}.key`) },
        static_host_map: { [addressOf(1 - i)]: [`${peer.address}:${PORT}`] },
        lighthouse: { am_lighthouse: false },
        listen: { host: node.address, port: PORT },
        cipher: 'aes',
        tun: {
          dev: 'nebula0',
          mtu: POD_MTU,
          unsafe_routes: [{ route: peer.subnet, via: addressOf(1 - i), mtu: POD_MTU }],
        },
        logging: { level: 'warning' },
        firewall: {
          outbound: [{ port: 'any', proto: 'any', host: 'any' }],
          inbound: [{ port: 'any', proto: 'any', host: 'any' }],
        },
      };
      writeFileSync(file(`${node.name}.yml`), JSON.stringify(config)); // JSON is YAML
      startProgramOf(stage, made, node, 'nebula', ['-config', file(`${node.name}.yml`)]);
    }
    // It makes addresses and routes itself.
  },
};
