/** The lab's facts as one JSON object: the last line of `lab up --json`. */
import { codeOf, messageOf } from '../util/errors.ts';
import { type LabFacts, summarise } from './picture.ts';

/** The JSON line: what other programs rely on. */
export function resultOf(facts: LabFacts): object {
  return {
    ok: true,
    name: facts.name,
    registry: facts.registry,
    transport: facts.transport,
    seconds: Math.round(facts.seconds * 1000) / 1000,
    nodes: facts.nodes.map(node => ({
      name: node.name,
      publicIp: node.address,
      subnet: node.subnet,
      mtu: node.device.mtu,
    })),
    pods: facts.pods.map(pod => ({ name: pod.name, node: pod.node, ip: pod.address })),
    ping: { ...summarise(facts.pairs), underlayRttMs: facts.underlayPair.medianMs },
    tcp: {
      gbps: facts.tcp.gbps,
      underlayGbps: facts.tcp.underlayGbps,
      ...(facts.tcp.others.length > 0 && {
        transports: Object.fromEntries([
          [facts.transport, facts.tcp.gbps],
          ...facts.tcp.others.map(other => [other.transport, other.gbps]),
        ]),
      }),
    },
  };
}

/** The JSON line of a failure. */
export function failureOf(error: unknown): object {
  return { ok: false, error: messageOf(error), code: codeOf(error) ?? 'unexpected' };
}
