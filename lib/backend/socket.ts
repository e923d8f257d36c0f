/** The underlay's socket as the backends use it: bound to the endpoint, and asked for the offloads that are wanted of it. */
import { openUdp, probeUdpTrains, setUdpGro } from '../sys/sys.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { Offloads, SocketOffloads } from './offloads.ts';

/** Room for a burst of super-packets in both directions; more than the default, which a single one fills. */
const SOCKET_BUFFER_BYTES = 8 * 1024 * 1024;

/** Code 'bad-endpoint' when somebody else has the port, or the address is not ours. */
export function openSocket(address: string, port: number): number {
  try {
    const options = { address, port, receiveBuffer: SOCKET_BUFFER_BYTES, sendBuffer: SOCKET_BUFFER_BYTES };
    return openUdp({ ...options, dontFragment: true }).handle;
  } catch (error) {
    throw new TulleError(
      'bad-endpoint',
      `cannot listen on ${address}:${port} for peers (${messageOf(error)}): stop the other tulled or flanneld, or change Backend.Port`,
      {
        cause: error,
      },
    );
  }
}

/**
 * Turns the offloads on that are wanted of the socket, and says which of them it has. Kernels before 5.0, and some sandboxes, lack
 * them: then datagrams go and come one by one.
 */
export function socketOffloads(udp: number, wanted: Offloads, log: Logger): SocketOffloads {
  const has = (want: boolean, ask: () => void, option: string): boolean => {
    if (!want) return false;
    try {
      ask();
      return true;
    } catch (error) {
      log.info({ option, reason: messageOf(error) }, 'this kernel has not all UDP offloads');
      return false;
    }
  };
  return {
    trains: has(wanted.trains, () => probeUdpTrains(udp), 'UDP_SEGMENT'),
    gro: has(wanted.gro, () => setUdpGro(udp, true), 'UDP_GRO'),
  };
}
