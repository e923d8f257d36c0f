// How a node comes to a lease: list, choose, write; again when another node was faster, and while the registry is away.
import { messageOf, TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { equals4 } from '../wire/cidr.ts';
import { type Choice, chooseLease, type LeaseRequest } from './choose.ts';
import type { Clock } from './clock.ts';
import { addressConflict, misfit, outOfSubnets, twinAdvice } from './holder.ts';
import {
  type Lease,
  type LeaseSubnets,
  mergeAttributes,
  nodeIdOf,
  printSubnets,
  sameSubnets,
  subnetKey,
} from './lease.ts';
import { type Registry, RegistryError, registryCodeOf } from './registry.ts';
import { createRetry } from './retry.ts';

export interface AcquireRequest extends LeaseRequest {
  ttlSeconds: number;
}

export interface AcquireTools {
  registry: Registry;
  clock: Clock;
  random: () => number;
  log: Logger;
}

export interface Acquired {
  lease: Lease;
  /** Monotonic clock: when the write that the registry acknowledged was sent. */
  sentMs: number;
  /** It was there already, and whoever wrote it may still run. Not where the registry gave it to us. */
  takenUp: boolean;
}

/** Each collision means that another node got a subnet, so a node that loses so often meets something else. */
export const maximumCollisions = 32;
const collisionPauseMs = 20;
/** As long as a holder needs to see that its key was written and to write it back: a poll of the file registry, round trips. */
const challengeMs = 3_000;

/**
 * Takes a lease in the order of choose.ts. Waits while the registry is unavailable (one warning a minute) until the
 * signal is aborted. Throws TulleError 'out-of-subnets', 'address-conflict' (another node's lease carries our address and
 * we have none yet, or the holder of a lease without a node id has answered), 'contention', 'aborted', or the registry's own error ('denied', 'corrupt').
 */
export async function acquireLease(
  tools: AcquireTools,
  request: AcquireRequest,
  signal?: AbortSignal,
): Promise<Acquired> {
  const { clock, random, log } = tools;
  const retry = createRetry(clock, random, log);
  for (let collisions = 0; collisions < maximumCollisions; ) {
    if (signal?.aborted) throw new TulleError('aborted', 'stopped before a lease was acquired');
    try {
      return await tryAcquire(tools, request, collisions, signal);
    } catch (error) {
      const code = registryCodeOf(error);
      if (code === 'unavailable') {
        await retry.failed(error, 'the lease registry is unavailable, trying again', signal);
      } else if (isOneOf(code, 'taken', 'conflict', 'missing')) {
        // Somebody was faster. Look again soon, but not all losers at once.
        collisions++;
        log.debug({ attempt: collisions, reason: messageOf(error) }, 'subnet was taken, choosing again');
        await clock.sleep(random() * collisionPauseMs * Math.min(collisions, 10), signal);
      } else {
        throw error;
      }
    }
  }
  throw new TulleError(
    'contention',
    `every one of ${maximumCollisions} chosen subnets was taken by another node first: start again in a moment`,
  );
}

async function tryAcquire(
  tools: AcquireTools,
  request: AcquireRequest,
  collisions: number,
  signal: AbortSignal | undefined,
): Promise<Acquired> {
  const { registry, clock, random, log } = tools;
  const snapshot = await registry.list();
  // Many nodes that start at once fill the first hundred quickly: each collision doubles the choice.
  const width = 100 * 2 ** Math.min(collisions, 14);
  const choice = chooseLease(snapshot, request, { random, width });
  report(log, choice, request);
  for (const lease of choice.discard) await registry.remove(lease);

  const sentMs = clock.monotonicMs();
  const { action } = choice;
  if (action.kind === 'full') throw outOfSubnets(request, snapshot);
  if (action.kind === 'misfit') throw misfit(action.lease);
  if (action.kind === 'create') {
    const lease = await registry.create({ ...action.subnets, attributes: request.attributes }, request.ttlSeconds);
    checkAnswer(lease, action.subnets);
    return { lease, sentMs, takenUp: false };
  }
  const attributes = mergeAttributes(action.lease.attributes, request.attributes);
  const ttlSeconds = action.lease.expiresAtMs === null ? null : request.ttlSeconds;
  const lease = await registry.update(action.lease, attributes, ttlSeconds);
  checkAnswer(lease, action.lease);
  if (snapshot.assigned === undefined && isNameless(action.lease, request)) {
    await challenge(tools, request, lease, signal);
  }
  return { lease, sentMs, takenUp: snapshot.assigned === undefined };
}

/**
 * Neither the lease nor what we write on it names a node (Backend udp, flannel's format), and no subnet.env says that it was
 * ours. Then the address alone tells whose it is: that of this node before it rebooted, or of another node with our address.
 */
function isNameless(lease: Lease, { attributes, previousSubnet }: AcquireRequest): boolean {
  if (nodeIdOf(lease) !== undefined || nodeIdOf({ attributes }) !== undefined) return false;
  const isPrevious = previousSubnet?.subnet !== undefined && equals4(previousSubnet.subnet, lease.subnet);
  return lease.expiresAtMs !== null && !isPrevious;
}

/**
 * Who runs sees our write and takes its lease back (contest.ts); who is gone does not. Rejected: to leave such a lease alone
 * until it ends. A node whose subnet.env was in a /run that a reboot emptied would be without a subnet for a day.
 */
async function challenge(
  { registry, clock }: AcquireTools,
  request: AcquireRequest,
  written: Lease,
  signal: AbortSignal | undefined,
): Promise<void> {
  await clock.sleep(challengeMs, signal);
  if (signal?.aborted) throw new TulleError('aborted', 'stopped before a lease was acquired');
  const { leases } = await registry.list();
  const found = leases.find(lease => sameSubnets(lease, written));
  if (found === undefined) throw new RegistryError('missing', `the lease ${printSubnets(written)} is gone`);
  if (found.modRevision === written.modRevision) return;
  await registry.remove(written).catch(() => {}); // a conflict, by which the registry tidies up after our write
  throw addressConflict(request, found);
}

function report(log: Logger, { action, discard, unusable, conflict, twins }: Choice, request: AcquireRequest): void {
  for (const lease of twins) {
    const fields = { lease: printSubnets(lease), address: lease.attributes.PublicIP, node: request.nodeId };
    log.warn(fields, `another lease carries this node's id, it is left alone: ${twinAdvice}`);
  }
  for (const lease of discard) {
    log.warn({ lease: printSubnets(lease) }, 'own lease does not fit the network configuration, replacing it');
  }
  for (const lease of unusable) {
    log.warn({ lease: printSubnets(lease) }, 'the reservation for this node does not fit the network configuration');
  }
  if (conflict === undefined) return;
  const error = addressConflict(request, conflict);
  if (action.kind !== 'keep') throw error;
  log.warn({ lease: printSubnets(conflict), node: nodeIdOf(conflict) }, error.message);
}

/** A registry that confirms another lease than the one that was written confirms nothing. */
export function checkAnswer(answer: Lease, subnets: LeaseSubnets): void {
  const { createRevision, modRevision } = answer;
  const plausible = Number.isInteger(createRevision) && Number.isInteger(modRevision) && createRevision <= modRevision;
  if (plausible && subnetKey(answer) === subnetKey(subnets)) return;
  const what = `it confirms ${printSubnets(answer)} at ${modRevision} where ${printSubnets(subnets)} was written`;
  throw new RegistryError('unavailable', `the registry answers nonsense: ${what}`);
}

export const isOneOf = <T>(value: T | undefined, ...allowed: T[]): boolean =>
  value !== undefined && allowed.includes(value);
