/**
 * Where the data path may be listened to: its four edges, and every drop. `slab.tap` is undefined while nobody captures, so
 * being able to capture costs one load and one branch that is always the same way: per batch at the edges, per drop inside.
 * Nothing that a tap does can fail, wait or change a packet.
 *
 * borrowed: all places, until the call returns. `reason` is the drop counter's index (counters.ts).
 */
export interface Tap {
  /** The packets of the first `count` TUN slots, as they were read: before egress touches them. */
  read(count: number): void;
  /** The first `count` rows of the message table, after the kernel saw them: those with status 0 have left. */
  sent(count: number): void;
  /** The datagrams of the first `count` records, as they were received: before ingress touches them. */
  received(count: number): void;
  /** The first `count` rows of a table of packets for the TUN, after the kernel saw them: it took those with status 0. */
  written(packetsOffset: number, count: number, iovsOffset: number): void;
  /** The packet of a TUN slot goes no further. */
  droppedRead(slot: number, reason: number): void;
  /** The datagrams of the message whose row begins at this word were refused. */
  droppedMessage(row: number, reason: number): void;
  /** All datagrams of a record. */
  droppedRecord(slot: number, reason: number): void;
  /** One received datagram. */
  droppedDatagram(offset: number, length: number, reason: number): void;
  /** One packet of a received bundle. */
  droppedInner(offset: number, length: number, reason: number): void;
  /** The packet whose row in the packet table begins at this word was refused by the TUN. */
  droppedWrite(row: number, reason: number): void;
}
