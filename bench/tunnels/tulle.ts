/** Ours: a real tulled on each node, over a file registry. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LabTransport } from '../../lib/lab/plan.ts';
import { program } from '../../lib/lab/spawn.ts';
import { POD_MTU, POD_NETWORK, startOn, workDirectory } from '../stage.ts';
import type { Tunnel } from './tunnel.ts';

/** `tulle` is our header, `udp` flannel's format: bare IP packets. */
export type WireFormat = 'tulle' | 'udp';

function tulle(name: string, format: WireFormat, transport: LabTransport, about: string): Tunnel {
  return {
    name,
    kind: 'user',
    about,
    async up(stage, made) {
      const directory = workDirectory(stage, name);
      rmSync(directory, { recursive: true, force: true });
      const leases = join(directory, 'leases');
      mkdirSync(join(leases, 'subnets'), { recursive: true });
      const config = { Network: POD_NETWORK, SubnetLen: 24, Backend: { Type: format } };
      writeFileSync(join(leases, 'config'), `${JSON.stringify(config)}\n`);
      for (const node of stage.nodes) {
        const subnetFile = join(directory, `${node.name}.env`);
        // A node that had a subnet before gets it again: so the pods can stay.
        const before = { NETWORK: POD_NETWORK, SUBNET: `${node.gateway}/24`, MTU: POD_MTU, IPMASQ: false };
        const lines = Object.entries(before).map(([key, value]) => `FLANNEL_${key}=${value}\n`);
        writeFileSync(subnetFile, lines.join(''));
        const command = [
          process.execPath,
          program('cmd/tulled.js'),
          `--registry=file:${leases}`,
          '-iface=eth0',
          `-subnet-file=${subnetFile}`,
          `--node-id=${node.name}`,
          `--transport=${transport}`,
          '--control-socket=none',
        ];
        made.programs.push(startOn(stage, node, command, { name }));
      }
    },
  };
}

export const tulleTunnels: readonly Tunnel[] = [
  tulle('tulle', 'tulle', 'offload', "tulled, its own header, trains and offloads: tulled's default"),
  tulle('tulle-batch', 'tulle', 'batch', 'tulled, its own header, batched system calls'),
  tulle('tulle-dgram', 'tulle', 'dgram', 'tulled, its own header, one packet a time through node:dgram'),
  tulle('tulle-udp', 'udp', 'offload', "tulled, flannel's wire format, trains and offloads"),
  tulle('tulle-udp-batch', 'udp', 'batch', "tulled, flannel's wire format, batched system calls"),
  tulle('tulle-udp-dgram', 'udp', 'dgram', "tulled, flannel's wire format, one packet a time through node:dgram"),
];
