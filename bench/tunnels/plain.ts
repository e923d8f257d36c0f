/** Tunnels of Debian that carry packets in the clear, as tulle does: what it is compared with. */
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TulleError } from '../../lib/util/errors.ts';
import { POD_MTU, peerOf, workDirectory } from '../stage.ts';
import { plugDevice, startProgramOf, type Tunnel } from './tunnel.ts';

const PORT = 5500;

export const fastd: Tunnel = {
  name: 'fastd',
  kind: 'user',
  about: 'fastd with the method "null": no encryption, no authentication of packets',
  needs: { package: 'fastd', program: 'fastd' },
  async up(stage, made) {
    const { path, environment } = made.found!;
    const makeKey = (): { secret: string; key: string } => {
      const { stdout } = spawnSync(path, ['--generate-key'], {
        encoding: 'utf8',
        env: { ...process.env, ...environment },
        timeout: 5000,
      });
      const [secret, key] = ['Secret', 'Public'].map(
        word => new RegExp(`${word}: ([0-9a-f]{64})`).exec(stdout ?? '')?.[1],
      );
      if (secret === undefined || key === undefined) throw new TulleError('program', 'fastd made no key');
      return { secret, key };
    };
    const keys = [makeKey(), makeKey()];
    const directory = workDirectory(stage, 'fastd');
    for (const [i, node] of stage.nodes.entries()) {
      const config = join(directory, `${node.name}.conf`);
      writeFileSync(
        config,
        `mode tun;
interface "fastd0";
method "null";
mtu ${POD_MTU};
bind ${node.address}:${PORT};
secret "${keys[i].secret}";
peer "other" {
  key "${keys[1 - i].key}";
  remote ipv4 ${peerOf(stage, node).address} port ${PORT};
}
`,
        { mode: 0o600 },
      );
      startProgramOf(stage, made, node, 'fastd', ['--config', config, '--log-level', 'warn']);
    }
    for (const node of stage.nodes) await plugDevice(stage, made, node, 'fastd0');
  },
};

export const quicktun: Tunnel = {
  name: 'quicktun',
  kind: 'user',
  about: 'quicktun with the protocol "raw": the packet as it is in a UDP datagram',
  needs: { package: 'quicktun', program: 'quicktun' },
  async up(stage, made) {
    for (const node of stage.nodes) {
      const settings = {
        TUN_MODE: '1',
        PROTOCOL: 'raw',
        LOCAL_ADDRESS: node.address,
        LOCAL_PORT: String(PORT),
        REMOTE_ADDRESS: peerOf(stage, node).address,
        REMOTE_PORT: String(PORT),
      };
      // Debian builds it for ifupdown, which gives it the settings of /etc/network/interfaces with a prefix.
      const prefixed = Object.entries(settings).map(([key, value]) => [`IF_QT_${key}`, value]);
      startProgramOf(stage, made, node, 'quicktun', [], { IFACE: 'quick0', ...Object.fromEntries(prefixed) });
    }
    for (const node of stage.nodes) await plugDevice(stage, made, node, 'quick0');
  },
};

export const tinc: Tunnel = {
  name: 'tinc',
  kind: 'user',
  about: 'tinc 1.0 with Cipher = none and Digest = none',
  needs: { package: 'tinc', program: 'tincd' },
  async up(stage, made) {
    const pem = { type: 'pkcs1', format: 'pem' } as const;
    const keys = stage.nodes.map(() =>
      generateKeyPairSync('rsa', { modulusLength: 2048, publicKeyEncoding: pem, privateKeyEncoding: pem }),
    );
    for (const [i, node] of stage.nodes.entries()) {
      const directory = workDirectory(stage, `tinc-${node.name}`);
      mkdirSync(join(directory, 'hosts'), { recursive: true });
      const peer = peerOf(stage, node);
      writeFileSync(
        join(directory, 'tinc.conf'),
        `Name = ${node.name}
Mode = router
DeviceType = tun
Interface = tinc0
AddressFamily = ipv4
${i === 0 ? `ConnectTo = ${peer.name}\n` : ''}`,
      );
      writeFileSync(join(directory, 'rsa_key.priv'), keys[i].privateKey, { mode: 0o600 });
      for (const [j, host] of stage.nodes.entries()) {
        writeFileSync(
          join(directory, 'hosts', host.name),
          `Address = ${host.address} ${PORT}
Port = ${PORT}
Subnet = ${host.subnet}
Cipher = none
Digest = none
MACLength = 0
Compression = 0
${keys[j].publicKey}`,
        );
      }
      const files = ['--config', directory, '--pidfile', join(directory, 'pid')];
      startProgramOf(stage, made, node, 'tinc', [...files, '--no-detach', '--logfile', join(directory, 'log')]);
    }
    for (const node of stage.nodes) await plugDevice(stage, made, node, 'tinc0');
  },
};

export const openvpn: Tunnel = {
  name: 'openvpn',
  kind: 'user',
  about: 'openvpn, point to point, with cipher none and auth none',
  needs: { package: 'openvpn', program: 'openvpn' },
  async up(stage, made) {
    for (const node of stage.nodes) {
      const options = {
        dev: 'ovpn0',
        'dev-type': 'tun',
        local: node.address,
        remote: peerOf(stage, node).address,
        port: String(PORT),
        proto: 'udp',
        cipher: 'none',
        auth: 'none',
        'tun-mtu': String(POD_MTU),
        mssfix: '0',
        verb: '1',
      };
      const args = Object.entries(options).flatMap(([key, value]) => [`--${key}`, value]);
      startProgramOf(stage, made, node, 'openvpn', [...args, '--ifconfig-noexec', '--route-noexec']);
    }
    for (const node of stage.nodes) await plugDevice(stage, made, node, 'ovpn0');
  },
};
