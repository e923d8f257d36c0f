/**
 * What daemons say to each other on the data port (kind 5 of the tulle header; docs/wire.md draws it): a question, its
 * answer, or a notice, which nobody asked for and nobody answers. One message is a few datagrams that stand alone but for being parts of it:
 *
 *   tulle header (id: the part's number from 0, index: how many parts) | token 8 | verb 1 | type 1 | length 2 | a slice
 *
 * The body is UTF-8 text of at most MESSAGE_BODY_BYTES. All slices but the last have one length, which the sender chooses.
 */
import { get16, get32, set16, set32 } from './bytes.ts';
import { HEADER_BYTES, tulleId, tulleIndex } from './tulle.ts';

export const MESSAGE_TOKEN = HEADER_BYTES;
export const MESSAGE_VERB = HEADER_BYTES + 8;
export const MESSAGE_TYPE = HEADER_BYTES + 9;
export const MESSAGE_LENGTH = HEADER_BYTES + 10;
export const MESSAGE_HEADER_BYTES = HEADER_BYTES + 12;

/** The longest datagram of a message: with the headers of IPv6 and UDP it crosses every path of 1280 bytes (RFC 8200 §5). */
export const MESSAGE_DATAGRAM_BYTES = 1_232;
export const MESSAGE_PARTS = 8;
/** The longest body. What is longer is cut by whoever writes it: lib/observe/node-messages.ts. */
export const MESSAGE_BODY_BYTES = 8_192;

export const TYPE_QUESTION = 0;
export const TYPE_ANSWER = 1;
/** Its token is the number of what it is about. */
export const TYPE_NOTICE = 2;

/** A part of a message, as it came. */
export interface MessagePart {
  tokenHigh: number;
  tokenLow: number;
  verb: number;
  type: number;
  part: number;
  parts: number;
  /** Bytes of the whole body. */
  length: number;
  /** borrowed: a view of the datagram. */
  slice: Uint8Array;
}

/** Reads a datagram of kind 5 after `checkTulle`; undefined when the message is not well formed. */
export function parseMessagePart(bytes: Uint8Array, offset: number, datagramLength: number): MessagePart | undefined {
  const part = tulleId(bytes, offset);
  const parts = tulleIndex(bytes, offset);
  const type = bytes[offset + MESSAGE_TYPE];
  const length = get16(bytes, offset + MESSAGE_LENGTH);
  const sliceLength = datagramLength - MESSAGE_HEADER_BYTES;
  if (sliceLength < 0 || type > TYPE_NOTICE || parts < 1 || parts > MESSAGE_PARTS || part >= parts) return undefined;
  if (length > MESSAGE_BODY_BYTES || sliceLength > length || (parts === 1 && sliceLength !== length)) return undefined;
  if (parts > 1 && sliceLength === 0) return undefined;
  const start = offset + MESSAGE_HEADER_BYTES;
  return {
    tokenHigh: get32(bytes, offset + MESSAGE_TOKEN),
    tokenLow: get32(bytes, offset + MESSAGE_TOKEN + 4),
    verb: bytes[offset + MESSAGE_VERB],
    type,
    part,
    parts,
    length,
    slice: bytes.subarray(start, start + sliceLength),
  };
}

/** What is behind the tulle header of one part. */
export function emitMessagePart(
  bytes: Uint8Array,
  offset: number,
  message: Omit<MessagePart, 'part' | 'parts'>,
): number {
  set32(bytes, offset + MESSAGE_TOKEN, message.tokenHigh);
  set32(bytes, offset + MESSAGE_TOKEN + 4, message.tokenLow);
  bytes[offset + MESSAGE_VERB] = message.verb;
  bytes[offset + MESSAGE_TYPE] = message.type;
  set16(bytes, offset + MESSAGE_LENGTH, message.length);
  bytes.set(message.slice, offset + MESSAGE_HEADER_BYTES);
  return MESSAGE_HEADER_BYTES + message.slice.length;
}
