/** The least that a user-space tunnel costs: bench/load/floor.ts says what it leaves out. */
import { programOfBench } from '../programs.ts';
import { peerOf, startOn } from '../stage.ts';
import { plugDevice, type Tunnel } from './tunnel.ts';

const PORT = 5600;

export const floor: Tunnel = {
  name: 'floor',
  kind: 'user',
  about: 'no tunnel to use: the copies and system calls of a TUN tunnel with offloads, and nothing else',
  async up(stage, made) {
    for (const node of stage.nodes) {
      const args = ['floor0', node.address, peerOf(stage, node).address, String(PORT)];
      const command = [process.execPath, programOfBench('load/floor.js'), ...args];
      made.programs.push(startOn(stage, node, command, { name: 'floor' }));
    }
    for (const node of stage.nodes) await plugDevice(stage, made, node, 'floor0');
  },
};
