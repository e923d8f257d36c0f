// etcd3, tamed. This file alone imports etcd3 and uses of it only the plain calls and the raw streams:
// - every call ends by its deadline, whatever etcd or the network does;
// - no circuit breaker and no retries of etcd3's (both act on their own clock): the few repeats are here, bounded, with
//   jitter, and every request is made so that a repeat does no harm;
// - one connection at a time, to one endpoint; an endpoint that does not answer loses it, and the next endpoint is tried
//   with a new one. Rejected: etcd3's pool picks an endpoint at random for each call, so one frozen member spoils a
//   third of them;
// - etcd3 forgets to close the connections that it opens to log in: here a client of its own logs in and is closed.
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import type {
  Etcd3,
  IDuplexStream,
  ILeaseKeepAliveResponse,
  IOptions,
  IRangeRequest,
  IRangeResponse,
  ITxnRequest,
  ITxnResponse,
  IWatchRequest,
  IWatchResponse,
} from 'etcd3';
import { RegistryError } from '../lib/lease/registry.ts';
import { type Endpoint, type EtcdAddress, parseEndpoints, readCertificates } from './endpoints.ts';
import { DeadlineError, failureKindOf, reasonOf, registryErrorOf } from './failure.ts';

export type { IKeyValue as KeyValue, ITxnResponse as TxnResponse, IWatchResponse as WatchResponse } from 'etcd3';

export interface EtcdClientOptions extends EtcdAddress {
  /** The most that one call may take, milliseconds. */
  deadlineMs?: number;
}

/** Every call rejects with a RegistryError: 'unavailable' or 'denied'. `until` is a time of performance.now(). */
export interface EtcdClient {
  /** For messages: "http://10.88.0.1:2379, http://10.88.0.2:2379". */
  readonly endpoints: string;
  /** The latest moment that a verb which begins now may end. */
  deadline(): number;
  range(request: IRangeRequest, until: number): Promise<IRangeResponse>;
  /** `repeated`: an earlier attempt got no answer and may have gone through; the failure branch has to tell. */
  txn(request: ITxnRequest, until: number): Promise<ITxnResponse & { repeated: boolean }>;
  /** Grants an etcd lease with an id of our choosing (so a repeat makes no second one); the TTL that etcd chose, seconds. */
  grant(id: string, ttlSeconds: number, until: number): Promise<number>;
  /** One keep-alive: the TTL, seconds; 0 when etcd knows no such lease. */
  keepAlive(id: string, until: number): Promise<number>;
  /** Revoking a lease that is gone succeeds. */
  revoke(id: string, until: number): Promise<void>;
  /** Seconds; ttl is -1 when etcd knows no such lease. */
  timeToLive(
    id: string,
    withKeys: boolean,
    until: number,
  ): Promise<{ ttl: number; grantedTtl: number; keys: string[] }>;
  /** A raw watch stream on the connection of this moment; `abandoned` is aborted when the client gives that connection up. */
  openWatch(): Promise<{ stream: WatchStream; abandoned: AbortSignal; giveUp: (error: unknown) => void }>;
  close(): void;
}

export type WatchStream = IDuplexStream<IWatchRequest, IWatchResponse>;

/** etcd3's private parts that we replace, see `tame`. */
interface Authenticator {
  getMetadata(): Promise<Metadata>;
  invalidateMetadata(): void;
}
interface Metadata {
  set(key: string, value: string): void;
}
interface Pool {
  authenticator: Authenticator;
}

interface Connection {
  endpoint: Endpoint;
  etcd: Etcd3;
  authenticator: Authenticator;
  abandon: AbortController;
}

const rounds = 3; // how often all endpoints are tried within one call
const firstPauseMs = 100; // after a round, then doubled, with jitter
const shortestAttemptMs = 250;

// 64 MB: 10,000 leases of 600 bytes in one answer are 6 MB; gRPC's own limit of 4 MB is too small.
const channelOptions = {
  'grpc.max_receive_message_length': 64 << 20,
  'grpc.enable_retries': 0, // ours are above
  'grpc.enable_http_proxy': 0, // an http_proxy meant for the internet must not swallow the control plane
  'grpc.service_config_disable_resolution': 1, // no DNS TXT look-ups
  'grpc.keepalive_time_ms': 20_000, // etcd forbids less than 5 s; the watch has its own, faster probe
  'grpc.keepalive_timeout_ms': 5_000,
};

let generation = 0;

/** Throws TulleError 'bad-config'. Opens no connection before the first call. */
export function createEtcdClient(options: EtcdClientOptions): EtcdClient {
  const endpoints = parseEndpoints(options.endpoints);
  const certificates = readCertificates(options);
  const deadlineMs = options.deadlineMs ?? 5_000;
  const printed = endpoints.map(endpoint => endpoint.url).join(', ');
  let current = Math.floor(Math.random() * endpoints.length); // a cluster's daemons spread over its members
  let connection: Connection | undefined;
  let closed = false;

  function connect(): Connection {
    if (closed) throw new RegistryError('unavailable', `the connection to etcd at ${printed} was closed`);
    connection ??= open(endpoints[current]);
    return connection;
  }

  function open(endpoint: Endpoint): Connection {
    const etcd3 = loadEtcd3();
    const etcdOptions: IOptions = {
      hosts: [endpoint.url],
      // gRPC shares the sockets of equal channels; a frozen one must not come back, so no two generations are equal.
      grpcOptions: { ...channelOptions, 'tulle.generation': ++generation },
      faultHandling: { host: () => passThrough, global: passThrough },
    };
    if (endpoint.secure) {
      const { ca, key, cert } = certificates;
      // The types ask for a root certificate; without one gRPC trusts what Node.js trusts.
      etcdOptions.credentials = { rootCertificate: ca, privateKey: key, certChain: cert } as NonNullable<
        IOptions['credentials']
      >;
    }
    const etcd = new etcd3.Etcd3(etcdOptions);
    const login = async (): Promise<string | undefined> => {
      const { username, password } = options;
      if (username === undefined || username === '') return undefined;
      const door = new etcd3.Etcd3(etcdOptions);
      try {
        const answer = door.auth.authenticate(
          { name: username, password: password ?? '' },
          { deadline: Date.now() + deadlineMs },
        );
        return (await within(deadlineMs, answer)).token;
      } catch (error) {
        if (/authentication is not enabled/.test(reasonOf(error))) return undefined; // as etcd's own client does
        throw error;
      } finally {
        door.close();
      }
    };
    return { endpoint, etcd, authenticator: tame(etcd, login), abandon: new AbortController() };
  }

  /** Ends a connection that did not serve; the next call opens one to the next endpoint. */
  function giveUp(bad: Connection, reason: unknown): void {
    if (connection === bad) {
      connection = undefined;
      current = (current + 1) % endpoints.length;
    }
    bad.abandon.abort(reason);
    bad.etcd.close();
  }

  async function call<T>(
    until: number,
    action: (etcd: Etcd3, options: { deadline: number }, attempt: number) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const used = connect();
      const left = until - performance.now();
      // The last part of the time is kept for a second connection: the first may be a dead one that nobody closed.
      const share = endpoints.length === 1 ? 0.7 : 1 / Math.max(2, endpoints.length - attempt + 1);
      const attemptMs = Math.max(left * share, Math.min(left, shortestAttemptMs), 1);
      try {
        return await within(attemptMs, action(used.etcd, { deadline: Date.now() + attemptMs }, attempt));
      } catch (error) {
        const kind = closed ? 'refused' : failureKindOf(error);
        if (kind === 'token') used.authenticator.invalidateMetadata();
        else if (kind === 'away') giveUp(used, error);
        else throw registryErrorOf(error, printed);
        const pause =
          attempt % endpoints.length === 0 ? jitter(firstPauseMs * 2 ** (attempt / endpoints.length - 1)) : 0;
        const over = performance.now() + pause + shortestAttemptMs > until;
        if (over || attempt >= rounds * endpoints.length) throw registryErrorOf(error, printed);
        if (pause > 0) await sleep(pause);
      }
    }
  }

  return {
    endpoints: printed,
    deadline: () => performance.now() + deadlineMs,
    range: (request, until) => call(until, (etcd, options) => etcd.kv.range(request, options)),
    txn: (request, until) =>
      call(until, async (etcd, options, attempt) => ({
        ...(await etcd.kv.txn(request, options)),
        repeated: attempt > 1,
      })),

    async grant(id, ttlSeconds, until) {
      return call(until, async (etcd, options) => {
        try {
          return Number((await etcd.leaseClient.leaseGrant({ ID: id, TTL: ttlSeconds }, options)).TTL);
        } catch (error) {
          if (!reasonOf(error).includes('lease already exists')) throw error;
          return keepAliveOnce(etcd, id, options); // an earlier attempt went through
        }
      });
    },

    keepAlive: (id, until) => call(until, (etcd, options) => keepAliveOnce(etcd, id, options)),

    async revoke(id, until) {
      await call(until, async (etcd, options) => {
        try {
          await etcd.leaseClient.leaseRevoke({ ID: id }, options);
        } catch (error) {
          if (!reasonOf(error).includes('lease not found')) throw error;
        }
      });
    },

    async timeToLive(id, withKeys, until) {
      const { TTL, grantedTTL, keys } = await call(until, (etcd, options) =>
        etcd.leaseClient.leaseTimeToLive({ ID: id, keys: withKeys }, options),
      );
      return { ttl: Number(TTL), grantedTtl: Number(grantedTTL), keys: keys.map(String) };
    },

    async openWatch() {
      const used = connect();
      const stop = (error: unknown): void => {
        if (failureKindOf(error) === 'token') used.authenticator.invalidateMetadata();
        else giveUp(used, error);
      };
      try {
        const stream = await within(deadlineMs, used.etcd.watchClient.watch());
        stream.on('error', () => {}); // one listener for ever: a late error of a cancelled stream must not end the process
        return { stream, abandoned: used.abandon.signal, giveUp: stop };
      } catch (error) {
        stop(error);
        throw registryErrorOf(error, printed);
      }
    },

    close() {
      closed = true;
      connection?.abandon.abort();
      connection?.etcd.close();
      connection = undefined;
    },
  };
}

/** The range that holds every key with this prefix. */
export function prefixRange(prefix: string): { key: Buffer; range_end: Buffer } {
  const key = Buffer.from(prefix);
  const end = Buffer.from(key);
  end[end.length - 1]++; // the prefixes that we use end in "/", so there is no carry
  return { key, range_end: end };
}

/** Half to the whole of a pause: many daemons that lost etcd together must not come back together. */
export function jitter(pauseMs: number): number {
  return pauseMs * (0.5 + Math.random() / 2);
}

// etcd3 takes 300 ms to load: only those pay for it who really speak to an etcd.
function loadEtcd3(): typeof import('etcd3') {
  return createRequire(import.meta.url)('etcd3');
}

type Policy = NonNullable<NonNullable<IOptions['faultHandling']>['global']>;
// Of a cockatiel policy etcd3 uses `execute` alone (etcd3, lib/connection-pool.js).
const passThrough = { execute: async (action: () => unknown) => action() } as unknown as Policy;

/** Puts our log-in in the place of etcd3's, and asks etcd to say so when it has no leader (as flannel's WithRequireLeader). */
function tame(etcd: Etcd3, login: () => Promise<string | undefined>): Authenticator {
  const { pool } = etcd as unknown as { pool: Pool };
  const empty = pool.authenticator;
  let token: Promise<string | undefined> | undefined;
  const own: Authenticator = {
    async getMetadata() {
      token ??= login();
      const asked = token;
      try {
        const text = await asked;
        const metadata = await empty.getMetadata();
        metadata.set('hasleader', 'true');
        if (text !== undefined) metadata.set('token', text);
        return metadata;
      } catch (error) {
        if (token === asked) token = undefined;
        throw error;
      }
    },
    invalidateMetadata() {
      token = undefined;
    },
  };
  pool.authenticator = own;
  return own;
}

/** One keep-alive on a stream of its own. etcd3's `keepaliveOnce` waits for ever when the stream ends without an answer. */
async function keepAliveOnce(etcd: Etcd3, id: string, options: { deadline: number }): Promise<number> {
  const stream = await etcd.leaseClient.leaseKeepAlive(options);
  try {
    const answer = await new Promise<ILeaseKeepAliveResponse>((resolve, reject) => {
      stream.on('data', resolve);
      stream.on('error', reject);
      stream.on('end', () => reject(new Error('the keep-alive stream ended without an answer')));
      stream.write({ ID: id });
    });
    return Math.max(0, Number(answer.TTL));
  } finally {
    stream.end(); // before cancel: etcd3 takes the error of an open stream for a failed host and closes its channels
    stream.cancel();
  }
}

/** gRPC keeps its deadlines, but not while a name is looked up or a log-in is under way: this one always holds. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DeadlineError('no answer in time')), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
