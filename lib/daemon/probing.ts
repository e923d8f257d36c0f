/** The probes of a running node: a timer, the worker's mail, and what becomes known of the peers. */
import { getRandomValues } from 'node:crypto';
import { overheadOf } from '../backend/backend.ts';
import type { Overlay } from '../backend/overlay.ts';
import { printEndpoint } from '../datapath/peers.ts';
import type { Mail } from '../datapath/side-link.ts';
import { FORMAT_TULLE, NO_LIMIT } from '../datapath/slab.ts';
import { PeerProbes } from '../observe/peer-probes.ts';
import { formatCidr4, type Subnet4 } from '../wire/cidr.ts';
import { formatAddress4 } from '../wire/ip4.ts';
import { formatAddress6 } from '../wire/ip6.ts';
import { HEADER_BYTES } from '../wire/tulle.ts';
import type { DaemonNetwork } from './network.ts';
import type { PeerView } from './observed.ts';
import type { Run } from './run.ts';

/** flannel's proxy does not understand a probe: a network of its format is not probed. */
const LEAST = { 4: 576, 6: 1_280 } as const;

/** Begins to probe, if the options say so, and hands all mail that is not about probes to `onMail`. Ends with `run.undo`. */
export function startProbes(
  run: Run,
  { backend }: DaemonNetwork,
  overlay: Overlay,
  onMail: (mail: Mail) => unknown,
): PeerView {
  const { options, parts, log } = run;
  const now = (): number => parts.clock.monotonicMs();
  const headers = overheadOf(backend);
  const outer = headers - HEADER_BYTES;
  const fields = (subnet: Subnet4): object => {
    const peer = overlay.peers().find(one => one.subnet.address === subnet.address);
    return { subnet: formatCidr4(subnet), ...(peer && { endpoint: printEndpoint(peer) }) };
  };
  const widths = new Map<number, number | undefined>();
  const probes = new PeerProbes({
    intervalMs: options.probeIntervalMs,
    overhead: outer,
    least: LEAST[backend.underlay ?? 4],
    most: () => overlay.mtu + headers,
    send: (subnet, errand) => overlay.side.probe(subnet, errand),
    heardMs: subnet => overlay.wayTo(subnet)?.heardMs,
    ...(options.transport === 'dgram' && {
      believedMtu: (subnet: Subnet4) => {
        const peer = overlay.peers().find(one => one.subnet.address === subnet.address);
        if (peer === undefined) return 0;
        const { address } = peer;
        const text = typeof address === 'number' ? formatAddress4(address) : formatAddress6(address, 0);
        return overlay.routeTo(text)?.mtu ?? 0;
      },
    }),
    random: () => getRandomValues(new Uint32Array(1))[0],
    onSilent(subnet, silent, { lastHeardMs }) {
      if (silent) log.warn({ ...fields(subnet), lastHeardMs }, 'a peer is silent: nothing comes from it any more');
      else log.info(fields(subnet), 'a peer is heard again');
    },
    onPath(subnet, pathMtu) {
      // The exact width of the narrow path; a wide one has no limit of its own.
      overlay.setPathLimit(subnet, pathMtu === undefined ? NO_LIMIT : pathMtu - headers);
      if (widths.get(subnet.address) === pathMtu) return;
      widths.set(subnet.address, pathMtu);
      if (pathMtu === undefined) log.info(fields(subnet), 'the way to a peer is as wide as the underlay again');
      else log.warn({ ...fields(subnet), pathMtu }, 'the way to a peer is narrower than the underlay');
    },
  });
  const isOn = options.probeIntervalMs > 0 && backend.type === 'tulle';

  const takeMail = (): void => {
    for (const mail of overlay.side.take()) {
      if (!probes.take(mail, now())) onMail(mail);
    }
  };
  const setPeers = (): void => {
    if (!isOn) return;
    const peers = overlay.peers().filter(peer => peer.format === FORMAT_TULLE);
    const known = new Set(peers.map(peer => peer.subnet.address));
    for (const address of widths.keys()) if (!known.has(address)) widths.delete(address);
    probes.setPeers(
      peers.map(peer => ({ subnet: peer.subnet, identity: `${peer.key} ${printEndpoint(peer)}` })),
      now(),
    );
  };
  run.onMail = takeMail;
  run.onPeers = setPeers;
  setPeers();

  let timer: NodeJS.Timeout | undefined;
  const tick = (): void => {
    takeMail();
    let wait = options.probeIntervalMs;
    if (run.manager.fenced) probes.pause();
    else wait = probes.tick(now());
    timer = setTimeout(tick, wait);
  };
  if (isOn) tick();
  run.undo.push('the probes', () => clearTimeout(timer));
  return {
    of: subnet => probes.of(subnet, now()),
    lastHeardMs(subnet) {
      const heard = overlay.wayTo(subnet)?.heardMs;
      return heard === undefined ? undefined : Math.max(0, now() - heard);
    },
  };
}
