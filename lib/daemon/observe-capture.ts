/** What passes through this node's data path, for whoever asks: tulle capture, the page. */
import { nodeIdOf } from '../lease/lease.ts';
import { addCaptureRoutes } from '../observe/capture/routes.ts';
import type { CapturedNode } from '../observe/capture.ts';
import { Captures } from '../observe/capture.ts';
import type { Observed, Observer } from './observed.ts';

export const observeCapture: Observer = (observed, routes, undo) => {
  const node = capturedNode(observed);
  const captures = new Captures(node);
  undo.push('the captures', () => captures.close());
  addCaptureRoutes(routes, captures, node);
};

function capturedNode(observed: Observed): CapturedNode {
  return {
    name: () => observed.nodeId,
    overlay() {
      const { overlay, network } = observed;
      if (overlay === undefined || network === undefined) return undefined;
      const local = { address: overlay.address, port: overlay.port };
      return { source: overlay.capture, device: overlay.device, local, network: network.config.network };
    },
    peers: () =>
      (observed.peers?.peers ?? []).map(lease => ({
        subnet: lease.subnet,
        node: nodeIdOf(lease),
        addresses: [lease.attributes.PublicIP, lease.attributes.PublicIPv6].filter(
          address => typeof address === 'string',
        ),
      })),
  };
}
