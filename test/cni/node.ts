/** A node for tests: a namespace for the host, a plugin that serves it, pods, and requests as the protocol would make them. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostRules, RuleKey, RuleRequest } from '../../lib/cni/host-rules.ts';
import { createNodePlugin, type NodePlugin, type NodePluginOptions } from '../../lib/cni/node-plugin.ts';
import type { CniCommand, CniRequest, CniResult } from '../../lib/cni/plugin.ts';
import { parseConfig } from '../../lib/cni/protocol/config.ts';
import { parseArgs } from '../../lib/cni/protocol/environment.ts';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { openRtnetlink, type Rtnetlink, withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace } from '../../lib/sys/sys.ts';
import { messageOf, TulleError } from '../../lib/util/errors.ts';
import { silentLogger } from '../../lib/util/log.ts';

/** Rules that are only remembered. */
export class FakeRules implements HostRules {
  readonly present = new Map<string, RuleRequest>();
  failure: string | undefined;
  detachFailure: string | undefined;
  /** Of the error that says that a rule is missing. */
  checkCode = 'rules';
  /** Called when a rule was made. */
  onAttach: () => void = () => {};

  attach(request: RuleRequest): void {
    if (this.failure !== undefined) throw new Error(this.failure);
    this.present.set(keyOf(request), request);
    this.onAttach();
  }

  detach(key: RuleKey): void {
    if (this.detachFailure !== undefined) throw new Error(this.detachFailure);
    this.present.delete(keyOf(key));
  }

  check(request: RuleRequest): void {
    if (this.present.has(keyOf(request))) return;
    throw new TulleError(this.checkCode, `no rule for ${keyOf(request)}`);
  }
}

/** Rules as files, which outlive the process that made them as the kernel's do. */
export class FileRules implements HostRules {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true });
  }

  attach(request: RuleRequest): void {
    writeFileSync(this.#fileOf(request), '');
  }

  detach(key: RuleKey): void {
    rmSync(this.#fileOf(key), { force: true });
  }

  check(): void {}

  /** "network/container/interface", sorted. */
  keys(): string[] {
    return readdirSync(this.#directory)
      .map(name => name.replaceAll('~', '/'))
      .sort();
  }

  #fileOf(key: RuleKey): string {
    return join(this.#directory, keyOf(key).replaceAll('/', '~'));
  }
}

const keyOf = ({ network, containerId, ifname }: RuleKey): string => `${network}/${containerId}/${ifname}`;

export interface Node {
  directory: string;
  dataDir: string;
  host: string;
  netlink: Rtnetlink;
  rules: FakeRules;
  plugin: NodePlugin;
  /** Makes a pod's namespace; returns its path. */
  pod(name: string): string;
  removePod(name: string): void;
  /** Ends the plugin and begins another, as a daemon that is started again. */
  restart(options?: Partial<NodePluginOptions>): Promise<void>;
  request(command: CniCommand, what: Partial<Call>): CniRequest;
  add(pod: string, config?: object, more?: Partial<Call>): Promise<CniResult>;
  del(pod: string, config?: object, more?: Partial<Call>): Promise<void>;
  remove(): void;
}

export interface Call {
  containerId: string;
  ifname: string;
  netns: string;
  args: string;
  path: string[];
  config: object;
  prevResult: CniResult;
  validAttachments: { containerId: string; ifname: string }[];
  signal: AbortSignal;
}

/** An address pool of its own and everything else as the reference's example has it. */
export const BRIDGE = {
  cniVersion: '1.1.0',
  name: 'net1',
  type: 'tulle-cni',
  bridge: 'cni0',
  isDefaultGateway: true,
  ipam: { type: 'tulle', subnet: '10.9.0.0/24' },
};

export function makeNode(options: Partial<NodePluginOptions> = {}): Node {
  const directory = mkdtempSync(join(tmpdir(), `tulle-cni-${process.pid}-`));
  const dataDir = join(directory, 'data');
  const host = join(directory, 'host');
  const pods = new Set<string>();
  const rules = new FakeRules();
  makeNamespace(host);
  const netlink = openRtnetlink(host);
  const make = (more: Partial<NodePluginOptions> = {}): NodePlugin =>
    createNodePlugin({
      node: () => undefined,
      dataDir,
      rules,
      log: silentLogger,
      namespace: host,
      ...options,
      ...more,
    });
  const node: Node = {
    directory,
    dataDir,
    host,
    netlink,
    rules,
    plugin: make(),
    pod(name) {
      const path = join(directory, name);
      if (!pods.has(name)) makeNamespace(path);
      pods.add(name);
      return path;
    },
    removePod(name) {
      removeNamespace(join(directory, name));
      pods.delete(name);
    },
    async restart(more) {
      node.plugin.close();
      node.plugin = make(more);
      await node.plugin.start();
    },
    request: makeRequest,
    add: (pod, config = BRIDGE, more = {}) =>
      node.plugin.add(makeRequest('ADD', { containerId: pod, netns: node.pod(pod), config, ...more })),
    del: (pod, config = BRIDGE, more = {}) =>
      node.plugin.del(makeRequest('DEL', { containerId: pod, netns: join(directory, pod), config, ...more })),
    remove() {
      node.plugin.close();
      netlink.close();
      for (const name of pods) removeNamespace(join(directory, name));
      removeNamespace(host);
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return node;
}

export function makeRequest(command: CniCommand, call: Partial<Call>): CniRequest {
  const { containerId = 'pod', ifname = 'eth0', netns = '', args = '', path = [], config = BRIDGE } = call;
  const raw: Record<string, unknown> = { ...config };
  const parsed = parseArgs(args);
  return {
    command,
    containerId,
    ifname,
    netns,
    args: parsed,
    argsText: args,
    path,
    config: parseConfig(raw, parsed),
    raw,
    signal: call.signal ?? new AbortController().signal,
    ...(call.prevResult !== undefined && { prevResult: call.prevResult }),
    ...(call.validAttachments !== undefined && { validAttachments: call.validAttachments }),
  };
}

/** Links of a namespace but lo, by name. */
export function linksIn(netlink: Rtnetlink | string): string[] {
  const list = (there: Rtnetlink): string[] =>
    there
      .links()
      .map(link => link.name)
      .filter(name => name !== 'lo')
      .sort();
  return typeof netlink === 'string' ? withRtnetlink(netlink, list) : list(netlink);
}

/** "10.9.0.2/24" of a link in a namespace; IPv6 without link-local ones. */
export const addressesOf = (namespace: string, link: string): string[] =>
  withRtnetlink(namespace, netlink =>
    netlink
      .addresses({ link })
      .filter(address => address.family === 4 || address.scope !== 'link')
      .map(address => `${address.address}/${address.prefixLength}`),
  );

/** What a promise was rejected with: code and message of a CniError. */
export async function rejection(promise: Promise<unknown>): Promise<{ code: number | undefined; message: string }> {
  try {
    await promise;
  } catch (error) {
    const code = typeof error === 'object' && error !== null && 'cniCode' in error ? Number(error.cniCode) : undefined;
    return { code, message: messageOf(error) };
  }
  return { code: undefined, message: 'it succeeded' };
}
