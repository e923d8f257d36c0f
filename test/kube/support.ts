/** An API server in this process (lib/lab/kube-api), nodes in it, and registries that speak to it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { type KubeRegistryOptions, openKubeRegistry } from '../../lib/kube/registry.ts';
import { type ApiObject, RESOURCES } from '../../lib/lab/kube-api/objects.ts';
import { applyPatch, PATCH_TYPES } from '../../lib/lab/kube-api/patch.ts';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../../lib/lab/kube-api/server.ts';
import type { LeaseAttributes } from '../../lib/lease/lease.ts';
import { subnetKey } from '../../lib/lease/lease.ts';
import type { Events, Registry, Snapshot } from '../../lib/lease/registry.ts';
import type { Logger } from '../../lib/util/log.ts';

export const prefix = 'flannel.alpha.coreos.com';
const { nodes } = RESOURCES;

export interface Bench {
  api: KubeApi;
  directory: string;
  netConf: string;
  /** "warn …", "info …" of every registry of this bench. */
  lines: string[];
  log: Logger;
  registry(node: string | undefined, changes?: Partial<KubeRegistryOptions>): Registry;
  /** A node as its kubelet and the controller-manager make it. */
  addNode(name: string, podCIDRs?: string[], annotations?: Record<string, string>): ApiObject;
  removeNode(name: string): void;
  addPod(name: string): void;
  getNode(name: string): ApiObject;
  /** Somebody else's merge patch of a node. */
  write(name: string, patch: object): ApiObject;
  /** flannel's annotations of a node without the prefix, sorted. */
  annotations(name: string): Record<string, string>;
}

export async function openBench(t: Test, options: KubeApiOptions = {}, netConf?: object): Promise<Bench> {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-kube-'));
  const api = await startKubeApi(options);
  t.teardown(async () => {
    await api.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const path = join(directory, 'net-conf.json');
  writeFileSync(path, JSON.stringify(netConf ?? { Network: '10.42.0.0/16', Backend: { Type: 'tulle' } }));
  const lines: string[] = [];
  const say =
    (level: string) =>
    (fields: object, message: string): void =>
      void lines.push([level, message, ...Object.values(fields)].join(' '));
  const log: Logger = { debug: () => {}, info: say('info'), warn: say('warn'), error: say('error') };
  return {
    api,
    directory,
    netConf: path,
    lines,
    log,
    registry(node, changes = {}) {
      const registry = openKubeRegistry({
        apiUrl: api.url,
        netConfigPath: path,
        ...(node !== undefined && { node: { name: node } }),
        log,
        times: { spreadMs: 10, firstPauseMs: 10, longestPauseMs: 200 },
        ...changes,
      });
      t.teardown(() => registry.close());
      return registry;
    },
    addNode(name, podCIDRs = [], annotations = {}) {
      const metadata = { name, annotations, uid: '', resourceVersion: '', creationTimestamp: '' };
      const spec = podCIDRs.length === 0 ? {} : { podCIDR: podCIDRs[0], podCIDRs };
      const conditions = [
        { type: 'Ready', status: 'True', reason: 'KubeletReady', message: '' },
        { type: 'NetworkUnavailable', status: 'True', reason: 'NoRouteCreated', message: '' },
      ];
      return api.store.create(nodes, { apiVersion: 'v1', kind: 'Node', metadata, spec, status: { conditions } });
    },
    addPod(name) {
      const metadata = { name, namespace: 'default', uid: '', resourceVersion: '', creationTimestamp: '' };
      api.store.create(RESOURCES['pods'], { apiVersion: 'v1', kind: 'Pod', metadata });
    },
    removeNode: name => void api.store.remove(nodes, '', name),
    getNode: name => api.store.get(nodes, '', name),
    write(name, patch) {
      const before = api.store.get(nodes, '', name);
      return api.store.update(nodes, applyPatch(before, PATCH_TYPES.merge, patch));
    },
    annotations(name) {
      const all = Object.entries(api.store.get(nodes, '', name).metadata.annotations ?? {});
      return Object.fromEntries(all.map(([key, value]) => [key.replace(`${prefix}/`, ''), value]).sort());
    },
  };
}

/** What a daemon announces on a node of the tests. */
export const attributesOf = (node: string, address: string): LeaseAttributes => ({
  PublicIP: address,
  PublicIPv6: null,
  BackendType: 'tulle',
  BackendData: { Version: 1, Port: 8285, NodeID: node },
});

/** The annotations of a node on which a daemon runs. */
export const announced = (node: string, address: string): Record<string, string> => ({
  [`${prefix}/kube-subnet-manager`]: 'true',
  [`${prefix}/backend-type`]: 'tulle',
  [`${prefix}/backend-data`]: JSON.stringify({ Version: 1, Port: 8285, NodeID: node }),
  [`${prefix}/public-ip`]: address,
});

/** Polls until the condition holds. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 30_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(10);
  }
}

/** A watch that is consumed in the background: what a peer would know. */
export interface Follower {
  messages: (Snapshot | Events)[];
  /** "10.42.1.0-24 → 10.88.0.1", sorted. */
  view(): string[];
  snapshots(): number;
  stop(): Promise<void>;
}

export function follow(t: Test, registry: Registry): Follower {
  const stopper = new AbortController();
  const view = new Map<string, string>();
  const follower: Follower = {
    messages: [],
    view: () => [...view].map(([key, address]) => `${key} ${address}`).sort(),
    snapshots: () => follower.messages.filter(message => message.kind === 'snapshot').length,
    async stop() {
      stopper.abort();
      await done;
    },
  };
  const done = (async () => {
    for await (const message of registry.watch(stopper.signal)) {
      follower.messages.push(message);
      if (message.kind === 'snapshot') {
        view.clear();
        for (const lease of message.leases) view.set(subnetKey(lease), lease.attributes.PublicIP);
      } else {
        for (const event of message.events) {
          if (event.kind === 'put') view.set(subnetKey(event.lease), event.lease.attributes.PublicIP);
          else view.delete(subnetKey(event));
        }
      }
    }
  })();
  t.teardown(() => follower.stop());
  return follower;
}
