/**
 * The addon's exports as C defines them (lib/sys/sys.h): integers, strings and bytes in, one integer out, >= 0 for a
 * result and -errno for a failure. The rest of tulle uses the typed face in sys.ts.
 */
export interface Native {
  version(): number;
  errorStep(): string;
  monotonicMs(): number;
  close(handle: number): number;
  keep(handle: number): number;
  handleCount(): number;
  registerArena(view: Uint8Array, movable: 0 | 1): number;
  unregisterArena(arena: number): number;
  checksum(arena: number, offset: number, length: number, initial: number): number;
  openTun(name: string, flags: number): number;
  tunName(handle: number, into: Uint8Array): number;
  setTunOffloads(handle: number, offloads: number): number;
  readTun(
    handle: number,
    arena: number,
    slotsOffset: number,
    slotStride: number,
    slotBytes: number,
    maxSlots: number,
    lengthsOffset: number,
  ): number;
  writeTun(handle: number, arena: number, packetsOffset: number, packetCount: number, iovsOffset: number): number;
  openUdp(address: string, port: number, receiveBuffer: number, sendBuffer: number, flags: number): number;
  setUdpGro(handle: number, on: 0 | 1): number;
  probeUdpTrains(handle: number): number;
  localAddress(handle: number, into: Uint8Array): number;
  encodeAddress(address: string, port: number, into: Uint8Array): number;
  sendUdp(handle: number, arena: number, messagesOffset: number, messageCount: number, iovsOffset: number): number;
  receiveUdp(
    handle: number,
    arena: number,
    slotsOffset: number,
    slotStride: number,
    slotBytes: number,
    maxMessages: number,
    recordsOffset: number,
  ): number;
  openEventFd(): number;
  wake(handle: number): number;
  drain(handle: number): number;
  poll(arena: number, pollOffset: number, count: number, timeoutMs: number): number;
  pollReadable(handle: number, callback: () => void): number;
  stopPolling(watch: number): number;
  openNetlink(protocol: number, namespace: string, groups: number): number;
  netlinkSend(handle: number, message: Uint8Array): number;
  netlinkSendAside(handle: number, message: Uint8Array): number;
  netlinkReceive(handle: number, into: Uint8Array, timeoutMs: number): number;
  netlinkExchange(handle: number, message: Uint8Array, into: Uint8Array): number;
  netlinkLinkIndex(handle: number, name: string): number;
  openRaw(family: 4 | 6, protocol: number, namespace: string): number;
  rawSend(handle: number, packet: Uint8Array, address: string): number;
  rawReceive(handle: number, into: Uint8Array, sender: Uint8Array, timeoutMs: number): number;
  openPacket(link: string, namespace: string, receiveBuffer: number): number;
  packetDrops(handle: number): number;
  createNamespace(path: string): number;
  removeNamespace(path: string): number;
  withNamespace<T>(path: string, action: () => T, failed: (errno: number) => never): T;
  flockOpen(path: string, exclusive: 0 | 1): number;
  peerCredentials(fd: number, into: Uint8Array): number;
  sendUnix(name: string, message: Uint8Array): number;
}
