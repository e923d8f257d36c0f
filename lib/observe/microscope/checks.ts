/**
 * What a receiver checks, done again where the learner can look: the steps of docs/wire.md, with the functions of lib/wire
 * that the data path calls. A step that needs what is not known here says so. Pure.
 */
import { contains4, parseCidr4 } from '../../wire/cidr.ts';
import { checkSegment, isIp6, totalLength } from '../../wire/either.ts';
import { checkIp4, formatAddress4, ip4Destination, ip4Source } from '../../wire/ip4.ts';
import { checkIp6 } from '../../wire/ip6.ts';
import { OK, REASON_NAMES } from '../../wire/reason.ts';
import {
  checkTulle,
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_PROBE_REPLY,
  KIND_SEGMENT,
  TULLE_VERSION,
  tulleKey,
  tulleKind,
} from '../../wire/tulle.ts';
import { payloadOfOuter } from './identity.ts';
import type { NetworkView, NodeView } from './model.ts';

export interface Check {
  name: string;
  /** unknown: the page does not know what the receiver knew; not reached: a check before it refused the datagram. */
  verdict: 'passed' | 'refused' | 'unknown' | 'not reached';
  /** What was compared with what. */
  text: string;
  /** The drop reason, when refused. */
  reason?: string;
}

/** Who is who, where it is known: a file knows nobody. */
export type Who = Pick<NetworkView, 'network' | 'nodes'>;

/** `bytes`: an outer packet, as long as it was. `receiver` is the name of the node that got it. */
export function receiverChecks(bytes: Uint8Array, receiver: string, who: Who | undefined): Check[] {
  const checks: Check[] = [];
  let refused = false;
  const check = (name: string, reason: string, verdict: boolean | undefined, text: string): void => {
    if (refused) {
      checks.push({ name, verdict: 'not reached', text: '' });
      return;
    }
    refused = verdict === false;
    checks.push({
      name,
      verdict: verdict === undefined ? 'unknown' : verdict ? 'passed' : 'refused',
      text,
      ...(refused && { reason }),
    });
  };

  const from = isIp6(bytes, 0) ? undefined : formatAddress4(ip4Source(bytes, 0));
  const sender = who?.nodes.find(node => node.address === from);
  const self = who?.nodes.find(node => node.name === receiver);
  const known = who !== undefined && who.nodes.length > 0 && from !== undefined;
  const endpointText =
    sender === undefined
      ? `${from ?? 'its source'} is ${known ? 'no leaseholder’s' : 'the outer source'}`
      : `${from} holds the lease of ${sender.subnet}`;
  check('endpoint', 'ingress-unknown-sender', known ? sender !== undefined : undefined, endpointText);

  const at = payloadOfOuter(bytes);
  const length = bytes.length - at;
  const version = at < 0 || length < 1 ? -1 : bytes[at] >>> 4;
  if (version === 4) {
    check(
      'format',
      'ingress-wrong-format',
      sender === undefined ? undefined : true,
      'the first nibble is 4: a bare IP packet, flannel’s format',
    );
    inner(check, bytes, at, length, false, sender, self, who);
    return checks;
  }
  check(
    'format',
    'ingress-wrong-version',
    version === TULLE_VERSION,
    `the first nibble is ${version}: ${version === TULLE_VERSION ? 'tulle, version 1' : 'no format of ours'}`,
  );
  if (version !== TULLE_VERSION) return checks;
  check('header', 'ingress-malformed', length >= HEADER_BYTES, `${length} bytes, at least ${HEADER_BYTES} are needed`);
  if (length < HEADER_BYTES) return checks;
  const key = tulleKey(bytes, at);
  const expected = sender?.leaseKey;
  check(
    'lease key',
    'ingress-stale-key',
    expected === undefined ? undefined : key === expected,
    expected === undefined ? `the header says ${key}` : `the header says ${key}, the sender’s lease has ${expected}`,
  );
  const kind = tulleKind(bytes, at);
  check(
    'kind',
    'ingress-unknown-kind',
    kind <= KIND_PROBE_REPLY,
    `kind ${kind} is ${kind <= KIND_PROBE_REPLY ? 'known' : 'unknown'}`,
  );
  const form = checkTulle(bytes, at, length);
  check(
    'form',
    'ingress-malformed',
    form === OK,
    form === OK ? 'the header agrees with the datagram' : REASON_NAMES[form],
  );
  if (form !== OK || kind > KIND_BUNDLE) return checks;
  const step = kind === KIND_BUNDLE ? 2 : 0; // of a bundle the first packet
  inner(check, bytes, at + HEADER_BYTES + step, length - HEADER_BYTES - step, kind === KIND_SEGMENT, sender, self, who);
  return checks;
}

type Add = (name: string, reason: string, verdict: boolean | undefined, text: string) => void;

function inner(
  check: Add,
  bytes: Uint8Array,
  ip: number,
  available: number,
  segment: boolean,
  sender: NodeView | undefined,
  self: NodeView | undefined,
  who: Who | undefined,
): void {
  const six = available > 0 && isIp6(bytes, ip);
  const code = segment
    ? checkSegment(bytes, ip - HEADER_BYTES, available + HEADER_BYTES)
    : six
      ? checkIp6(bytes, ip, available)
      : checkIp4(bytes, ip, available);
  const about = segment
    ? 'index, last flag and slice follow from the lengths'
    : code === OK
      ? `${totalLength(bytes, ip)} bytes, header and payload are there`
      : '';
  check('inner header', 'ingress-malformed', code === OK, code === OK ? about : REASON_NAMES[code]);
  if (code !== OK || six) return;
  const network = who === undefined ? undefined : parseCidr4(who.network);
  const lease = sender === undefined ? undefined : parseCidr4(sender.subnet);
  const own = self === undefined ? undefined : parseCidr4(self.subnet);
  const source = ip4Source(bytes, ip);
  const destination = ip4Destination(bytes, ip);
  const sourceOk =
    network === undefined || lease === undefined ? undefined : !contains4(network, source) || contains4(lease, source);
  check(
    'inner source',
    'ingress-spoofed-source',
    sourceOk,
    `${formatAddress4(source)} ${sender === undefined ? 'must lie in the sender’s subnet' : `${sourceOk ? 'lies' : 'does not lie'} in ${sender.subnet}`}`,
  );
  const destinationOk =
    network === undefined || own === undefined
      ? undefined
      : !contains4(network, destination) || contains4(own, destination);
  check(
    'inner destination',
    'ingress-not-ours',
    destinationOk,
    `${formatAddress4(destination)} ${self === undefined ? 'must lie in the receiver’s subnet' : `${destinationOk ? 'lies' : 'does not lie'} in ${self.subnet}`}`,
  );
}
