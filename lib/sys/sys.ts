/**
 * The only room that touches the kernel: TUN devices, UDP in batches, netlink, raw sockets, namespaces, readiness.
 *
 * Cold calls throw SysError. Hot calls (readTun, writeTun, sendUdp, receiveUdp, poll, drain, checksum) take and return
 * integers, allocate nothing, and work on registered memory: see arena.ts. The work is done by the C addon beside.
 */
export { addonPath } from './addon.ts';
export { checksum, registerArena, unregisterArena } from './arena.ts';
export { errnoName, errnoText, SysError } from './errors.ts';
export { close, flockOpen, handleCount, keep, monotonicMs } from './handles.ts';
export { createNamespace, removeNamespace, withNamespace } from './namespace.ts';
export {
  netlinkExchange,
  netlinkLinkIndex,
  netlinkReceive,
  netlinkSend,
  netlinkSendAside,
  openNetlink,
  openRaw,
  rawReceive,
  rawSend,
} from './netlink.ts';
export { openPacket, packetDrops } from './packet.ts';
export { type PeerCredentials, peerCredentials } from './peer.ts';
export {
  drain,
  openEventFd,
  POLLERR,
  POLLHUP,
  POLLIN,
  POLLNVAL,
  POLLOUT,
  poll,
  pollReadable,
  wake,
} from './readiness.ts';
export {
  openTun,
  readTun,
  setTunOffloads,
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_USO4,
  TUN_F_USO6,
  writeTun,
} from './tun.ts';
export {
  ADDRESS_BYTES,
  type Address,
  BATCH_MESSAGES,
  decodeAddress,
  encodeAddress,
  localAddress,
  openUdp,
  probeUdpTrains,
  receiveUdp,
  sendUdp,
  setUdpGro,
} from './udp.ts';
export { sendUnixDatagram } from './unix.ts';
