/** The fields of each header: name, value, meaning, place. One function a header; offsets and values are lib/wire's. */
import { get16, get32 } from '../../wire/bytes.ts';
import {
  ICMP4_ECHO_REPLY,
  ICMP4_ECHO_REQUEST,
  ICMP6_ECHO_REPLY,
  ICMP6_ECHO_REQUEST,
  icmpChecksum,
  icmpCode,
  icmpEchoId,
  icmpEchoSequence,
  icmpMtu,
  icmpType,
} from '../../wire/icmp.ts';
import {
  formatTcpFlags,
  nextTcpOption,
  TCP_ACKNOWLEDGEMENT,
  TCP_CHECKSUM,
  TCP_DESTINATION_PORT,
  TCP_HEADER_BYTES,
  TCP_OFFSET_FLAGS,
  TCP_OPTION_MSS,
  TCP_OPTION_SACK,
  TCP_OPTION_SACK_PERMITTED,
  TCP_OPTION_TIMESTAMPS,
  TCP_OPTION_WINDOW_SCALE,
  TCP_SEQUENCE,
  TCP_SOURCE_PORT,
  TCP_URGENT,
  TCP_WINDOW,
  tcpAcknowledgement,
  tcpChecksum,
  tcpDestinationPort,
  tcpFlags,
  tcpSequence,
  tcpSourcePort,
  tcpUrgent,
  tcpWindow,
} from '../../wire/tcp.ts';
import {
  FLAG_LAST_SEGMENT,
  FLAG_PARTIAL_CHECKSUM,
  KIND_BUNDLE,
  KIND_MESSAGE,
  KIND_PACKET,
  KIND_PROBE,
  KIND_PROBE_REPLY,
  KIND_SEALED,
  KIND_SEGMENT,
  KIND_TRACED,
  TULLE_FLAGS,
  TULLE_ID,
  TULLE_INDEX,
  TULLE_KEY,
  TULLE_SEGMENT_SIZE,
  traceId,
  tulleFlags,
  tulleId,
  tulleIndex,
  tulleKey,
  tulleKind,
  tulleSegmentSize,
} from '../../wire/tulle.ts';
import {
  UDP_CHECKSUM,
  UDP_DESTINATION_PORT,
  UDP_LENGTH,
  UDP_SOURCE_PORT,
  udpChecksum,
  udpDestinationPort,
  udpLength,
  udpSourcePort,
} from '../../wire/udp.ts';
import {
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAG_DATA_VALID,
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_SIZE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_TYPE,
  VNET_GSO_UDP_L4,
  VNET_HEADER_LENGTH,
  vnetChecksumOffset,
  vnetChecksumStart,
  vnetFlags,
  vnetGsoSize,
  vnetGsoType,
  vnetHeaderLength,
} from '../../wire/vnet.ts';
import { type Field, fieldList, hex } from './field.ts';

export function vnetFields(bytes: Uint8Array, offset: number): Field[] {
  const { fields, add } = fieldList(offset);
  const flags = vnetFlags(bytes, offset);
  const set = [
    ...((flags & VNET_FLAG_NEEDS_CSUM) !== 0 ? ['needs checksum'] : []),
    ...((flags & VNET_FLAG_DATA_VALID) !== 0 ? ['checksum verified'] : []),
  ];
  add(
    0,
    1,
    'flags',
    set.join(', ') || 'none',
    'What the kernel left undone. "needs checksum": the L4 checksum holds the pseudo-header sum only.',
  );
  const type = vnetGsoType(bytes, offset);
  const names: Readonly<Record<number, string>> = {
    [VNET_GSO_NONE]: 'none',
    [VNET_GSO_TCPV4]: 'TCP over IPv4',
    [VNET_GSO_TCPV6]: 'TCP over IPv6',
    [VNET_GSO_UDP_L4]: 'UDP',
  };
  add(
    VNET_GSO_TYPE,
    1,
    'segmentation',
    names[type & ~VNET_GSO_ECN] ?? hex(type, 2),
    'Whether this is a super-packet, and of which protocol.',
  );
  add(
    VNET_HEADER_LENGTH,
    2,
    'header length',
    `${vnetHeaderLength(bytes, offset)}`,
    'Bytes of IP and L4 header; a hint.',
  );
  add(
    VNET_GSO_SIZE,
    2,
    'segment size',
    `${vnetGsoSize(bytes, offset)}`,
    'Payload bytes of each segment of a super-packet.',
  );
  add(
    VNET_CHECKSUM_START,
    2,
    'checksum start',
    `${vnetChecksumStart(bytes, offset)}`,
    'Where the bytes begin that the checksum covers.',
  );
  add(
    VNET_CHECKSUM_OFFSET,
    2,
    'checksum place',
    `${vnetChecksumOffset(bytes, offset)}`,
    'From there to the field that waits for it.',
  );
  return fields;
}

export function udpFields(bytes: Uint8Array, o: number): Field[] {
  const { fields, add } = fieldList(o);
  add(UDP_SOURCE_PORT, 2, 'source port', `${udpSourcePort(bytes, o)}`, 'Where it was sent from.');
  add(
    UDP_DESTINATION_PORT,
    2,
    'destination port',
    `${udpDestinationPort(bytes, o)}`,
    'Whom it is for on the other side: 8285 is tulle’s and flannel’s.',
  );
  add(UDP_LENGTH, 2, 'length', `${udpLength(bytes, o)}`, 'UDP header and what follows.');
  add(
    UDP_CHECKSUM,
    2,
    'checksum',
    hex(udpChecksum(bytes, o), 4),
    'Covers every byte behind it, the inner headers too, and the addresses.',
  );
  return fields;
}

const KINDS: Readonly<Record<number, readonly [string, string]>> = {
  [KIND_PACKET]: ['packet', 'one IP packet follows'],
  [KIND_SEGMENT]: ['segment', 'the super-packet’s headers and one slice of its payload follow'],
  [KIND_BUNDLE]: ['bundle', 'several IP packets follow, each behind its length'],
  [KIND_PROBE]: ['probe', 'a token follows: are you there, and how long is the way?'],
  [KIND_PROBE_REPLY]: ['probe reply', 'the probe’s token comes back'],
  [KIND_MESSAGE]: ['message', 'one part of what a daemon asks or answers follows'],
  [KIND_TRACED]: ['traced packet', 'one IP packet follows, and its receiver remembers what became of it'],
  [KIND_SEALED]: ['sealed', 'reserved for an encrypted format'],
};

const SEQUENCE: readonly [string, string] = ['sequence', 'Counts the probes to this peer; the reply repeats it.'];
const ID_NAMES: Readonly<Record<number, readonly [string, string]>> = {
  [KIND_PROBE]: SEQUENCE,
  [KIND_PROBE_REPLY]: SEQUENCE,
  [KIND_MESSAGE]: ['part', 'Which part of the message it is.'],
};
const INDEX_NAMES: Readonly<Record<number, readonly [string, string]>> = {
  [KIND_BUNDLE]: ['packets', 'How many packets the bundle holds.'],
  [KIND_MESSAGE]: ['parts', 'How many parts the message has.'],
};

export function tulleFields(bytes: Uint8Array, o: number): Field[] {
  const { fields, add } = fieldList(o);
  const kind = tulleKind(bytes, o);
  const [name, about] = KINDS[kind] ?? [`${kind}`, 'unknown: a receiver drops it'];
  add(0, 1, 'version, kind', `1, ${name}`, `Version 1 of the tulle header; ${about}.`);
  const flags = tulleFlags(bytes, o);
  const set = [
    ...((flags & FLAG_PARTIAL_CHECKSUM) !== 0 ? ['partial checksum'] : []),
    ...((flags & FLAG_LAST_SEGMENT) !== 0 ? ['last segment'] : []),
  ];
  add(
    TULLE_FLAGS,
    1,
    'flags',
    set.join(', ') || 'none',
    'Partial: the inner checksum is the pseudo-header sum; the outer one guards the bytes.',
  );
  const number = kind === KIND_TRACED ? traceId(bytes, o).toString(16).padStart(12, '0') : '';
  if (number !== '')
    add(TULLE_SEGMENT_SIZE, 2, 'number', number.slice(0, 4), 'The first 16 bits of the trace’s number.');
  else
    add(
      TULLE_SEGMENT_SIZE,
      2,
      'segment size',
      `${tulleSegmentSize(bytes, o)}`,
      'Payload of each full segment; 0 for other kinds.',
    );
  add(
    TULLE_KEY,
    4,
    'lease key',
    `${tulleKey(bytes, o)}`,
    'The sender’s lease: another number when the subnet changes hands.',
  );
  if (number !== '') {
    add(TULLE_ID, 4, 'number', number.slice(4), 'Its other 32 bits.');
    return fields;
  }
  const [idName, idAbout] = ID_NAMES[kind] ?? ['id', 'Segments of one super-packet have the same; 0 when unused.'];
  add(TULLE_ID, 2, idName, `${tulleId(bytes, o)}`, idAbout);
  const [indexName, indexAbout] = INDEX_NAMES[kind] ?? ['index', 'Which segment it is; 0 when unused.'];
  add(TULLE_INDEX, 2, indexName, `${tulleIndex(bytes, o)}`, indexAbout);
  return fields;
}

export function tcpFields(bytes: Uint8Array, o: number, headerLength: number): Field[] {
  const { fields, add } = fieldList(o);
  add(TCP_SOURCE_PORT, 2, 'source port', `${tcpSourcePort(bytes, o)}`, 'The program that sends.');
  add(TCP_DESTINATION_PORT, 2, 'destination port', `${tcpDestinationPort(bytes, o)}`, 'The program that it is for.');
  add(TCP_SEQUENCE, 4, 'sequence', `${tcpSequence(bytes, o)}`, 'The place of the first payload byte in the stream.');
  add(
    TCP_ACKNOWLEDGEMENT,
    4,
    'acknowledgement',
    `${tcpAcknowledgement(bytes, o)}`,
    'The next byte that the sender expects.',
  );
  add(
    TCP_OFFSET_FLAGS,
    2,
    'length, flags',
    `${headerLength} bytes, ${formatTcpFlags(tcpFlags(bytes, o))}`,
    'S opens, F closes, R breaks off, P hands over, the dot acknowledges.',
  );
  add(TCP_WINDOW, 2, 'window', `${tcpWindow(bytes, o)}`, 'How much more the other side may send.');
  add(
    TCP_CHECKSUM,
    2,
    'checksum',
    hex(tcpChecksum(bytes, o), 4),
    'Over header, payload and addresses; partial when a later layer finishes it.',
  );
  add(TCP_URGENT, 2, 'urgent', `${tcpUrgent(bytes, o)}`, 'Not used any more.');
  for (
    let at = nextTcpOption(bytes, o, o + TCP_HEADER_BYTES);
    at >= 0;
    at = nextTcpOption(bytes, o, at + bytes[at + 1])
  ) {
    const [name, value] = tcpOption(bytes, at);
    add(at - o, bytes[at + 1], name, value, 'An option that both sides agreed on.');
  }
  return fields;
}

function tcpOption(bytes: Uint8Array, at: number): [name: string, value: string] {
  const length = bytes[at + 1];
  switch (bytes[at]) {
    case TCP_OPTION_MSS:
      return ['option MSS', length === 4 ? `${get16(bytes, at + 2)}` : 'damaged'];
    case TCP_OPTION_WINDOW_SCALE:
      return ['option window scale', length === 3 ? `${bytes[at + 2]}` : 'damaged'];
    case TCP_OPTION_SACK_PERMITTED:
      return ['option SACK permitted', 'yes'];
    case TCP_OPTION_SACK:
      return ['option SACK', `${(length - 2) / 8} ranges`];
    case TCP_OPTION_TIMESTAMPS:
      return ['option timestamps', length === 10 ? `${get32(bytes, at + 2)}, echo ${get32(bytes, at + 6)}` : 'damaged'];
    default:
      return [`option ${bytes[at]}`, `${length} bytes`];
  }
}

const ICMP4_NAMES: Readonly<Record<number, string>> = {
  [ICMP4_ECHO_REPLY]: 'echo reply',
  [ICMP4_ECHO_REQUEST]: 'echo request',
  3: 'unreachable',
  11: 'time exceeded',
};
const ICMP6_NAMES: Readonly<Record<number, string>> = {
  [ICMP6_ECHO_REPLY]: 'echo reply',
  [ICMP6_ECHO_REQUEST]: 'echo request',
  1: 'unreachable',
  2: 'packet too big',
  3: 'time exceeded',
};

export function icmpFields(bytes: Uint8Array, o: number, six: boolean): Field[] {
  const { fields, add } = fieldList(o);
  const type = icmpType(bytes, o);
  const name = (six ? ICMP6_NAMES : ICMP4_NAMES)[type];
  add(0, 1, 'type', name === undefined ? `${type}` : `${type} (${name})`, 'What the message says.');
  add(1, 1, 'code', `${icmpCode(bytes, o)}`, 'More exactly.');
  add(2, 2, 'checksum', hex(icmpChecksum(bytes, o), 4), 'Over the whole message.');
  if (name?.startsWith('echo')) {
    add(4, 2, 'id', `${icmpEchoId(bytes, o)}`, 'Which ping it belongs to.');
    add(6, 2, 'sequence', `${icmpEchoSequence(bytes, o)}`, 'Which of its echoes.');
  } else {
    add(4, 4, 'rest', `${icmpMtu(bytes, o)}`, 'In a "too big" the MTU of the next link.');
  }
  return fields;
}
