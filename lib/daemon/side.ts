/** What this node does beside carrying packets: probes, questions to other nodes and their answers, traces. */
import { getRandomValues } from 'node:crypto';
import { overheadOf } from '../backend/backend.ts';
import type { Overlay } from '../backend/overlay.ts';
import { NodeMessages, VERB_TRACED } from '../observe/node-messages.ts';
import { MESSAGE_DATAGRAM_BYTES } from '../wire/node-message.ts';
import { HEADER_BYTES } from '../wire/tulle.ts';
import { answerSummary } from './cluster.ts';
import type { DaemonNetwork } from './network.ts';
import { startProbes } from './probing.ts';
import type { Run } from './run.ts';
import { Tracing } from './tracing.ts';

/** Begins it all for an overlay that stands; ends with `run.undo`. */
export function openSide(run: Run, network: DaemonNetwork, overlay: Overlay): void {
  const { observed, parts } = run;
  const outer = overheadOf(network.backend) - HEADER_BYTES;
  const messages = new NodeMessages({
    send: (...part) => overlay.side.message(...part),
    longest: subnet => {
      const width = observed.probes?.of(subnet)?.pathMtu;
      return width == null ? MESSAGE_DATAGRAM_BYTES : width - outer;
    },
    clock: parts.clock,
    random: () => getRandomValues(new Uint32Array(1))[0],
  });
  const tracing = new Tracing(observed);
  answerSummary(messages, observed);
  messages.answer(VERB_TRACED, (question, from) => tracing.report(from.address, question));
  messages.listen(VERB_TRACED, (token, body, from) => tracing.refused(token, body, from));
  observed.messages = messages;
  observed.tracing = tracing;
  observed.probes = startProbes(run, network, overlay, mail => messages.take(mail) || tracing.take(mail));
}
