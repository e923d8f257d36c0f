// Where the API server is and who we are, as kubectl and pods are told it: a kubeconfig file, or a pod's service account.
// @kubernetes/client-node reads both, with tokens, client certificates and credential plugins; the calls are ours (api.ts).
import { existsSync, readFileSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { KubeConfig } from '@kubernetes/client-node';
import { messageOf, TulleError } from '../util/errors.ts';

export interface ApiPlace {
  kubeconfigFile?: string;
  /** Counts more than the server in the kubeconfig. */
  apiUrl?: string;
  /** What stands before /var/run/secrets/… where a pod's files are elsewhere. */
  rootDirectory?: string;
}

export interface Credentials {
  /** "https://10.96.0.1:443" and, where the API server is below a path, that path, without a "/" at its end. */
  readonly server: string;
  /**
   * What a request needs beside its own: CA, client certificate, token. Certificates in files of their own are read anew each time
   * and a token in a file each minute; what stands in the kubeconfig itself only after `forget`.
   */
  options(): Promise<RequestOptions>;
  /** The server did not know us, or we not the server: read everything again before the next request, the kubeconfig too. */
  forget(): void;
}

const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount';

/** Throws TulleError 'bad-kubeconfig', one line. */
export function openCredentials(place: ApiPlace): Credentials {
  const first = load(place);
  const server = serverOf(first, place);
  let config = plainWhereItIs(first, server);
  return {
    server,
    async options() {
      const options: RequestOptions = {};
      await config.applyToHTTPSOptions(options);
      // A token file ends with a line feed more often than not.
      const headers: Record<string, unknown> = { ...options.headers };
      const { Authorization: token } = headers;
      if (typeof token === 'string') options.headers = { ...options.headers, Authorization: token.trim() };
      // Its agent is made for one request; api.ts keeps connections. A proxy is another matter: only that agent knows it.
      if (config.getCurrentCluster()?.proxyUrl === undefined) delete options.agent;
      return options;
    },
    forget() {
      try {
        config = plainWhereItIs(load(place), server);
      } catch {
        // It is being written just now, perhaps: what we had stays, and the next refusal brings us here again.
      }
    },
  };
}

function load({ kubeconfigFile, apiUrl, rootDirectory = '' }: ApiPlace): KubeConfig {
  const config = new KubeConfig();
  if (kubeconfigFile !== undefined) {
    const bad = (why: string, cause?: unknown): TulleError =>
      new TulleError('bad-kubeconfig', `the kubeconfig ${kubeconfigFile} ${why}`, { cause });
    let text: string;
    try {
      text = readFileSync(kubeconfigFile, 'utf8');
    } catch (error) {
      throw bad(`cannot be read (${messageOf(error)}): give another with -kubeconfig-file`, error);
    }
    try {
      config.loadFromFile(kubeconfigFile);
    } catch (error) {
      const what = text.trim() === '' ? 'is empty' : `is none: ${firstLine(error)}`;
      throw bad(what, error);
    }
    checkContext(config, apiUrl, bad);
  } else if (apiUrl !== undefined) {
    config.loadFromClusterAndUser({ name: 'cluster', server: apiUrl, skipTLSVerify: false }, { name: 'user' });
  } else {
    checkPod(rootDirectory);
    config.loadFromCluster(rootDirectory);
  }
  return config;
}

/** client-node refuses http:// unless it is told that there is no certificate to look at, which is so. */
function plainWhereItIs(config: KubeConfig, server: string): KubeConfig {
  if (server.startsWith('https:')) return config;
  config.clusters = config.clusters.map(cluster => ({ ...cluster, server, skipTLSVerify: true }));
  return config;
}

function checkContext(config: KubeConfig, apiUrl: string | undefined, bad: (why: string) => TulleError): void {
  const name = config.getCurrentContext();
  const context = config.getContextObject(name);
  if (!name) throw bad('names no current-context: "kubectl config use-context" sets it');
  if (context === null) throw bad(`has no context "${name}", which is its current-context`);
  const cluster = config.getCurrentCluster();
  if (cluster === null) throw bad(`has no cluster "${context.cluster}", which its context "${name}" names`);
  if (context.user && config.getCurrentUser() === null) {
    throw bad(`has no user "${context.user}", which its context "${name}" names`);
  }
  if (!cluster.server && apiUrl === undefined) throw bad(`has no server in its cluster "${cluster.name}"`);
}

function checkPod(rootDirectory: string): void {
  const advice = 'give -kubeconfig-file, or run tulled in a pod with a service account';
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = process.env;
  if (!host || !port) {
    throw new TulleError('bad-kubeconfig', `this is no pod (KUBERNETES_SERVICE_HOST is not set): ${advice}`);
  }
  const token = `${rootDirectory}${serviceAccount}/token`;
  if (!existsSync(token)) throw new TulleError('bad-kubeconfig', `this pod has no ${token}: ${advice}`);
}

function serverOf(config: KubeConfig, { kubeconfigFile, apiUrl }: ApiPlace): string {
  const text = apiUrl ?? config.getCurrentCluster()!.server;
  const source = apiUrl === undefined ? `the server of the kubeconfig ${kubeconfigFile ?? ''}` : '-kube-api-url';
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new TulleError('bad-kubeconfig', `${source}: "${text}" is no URL like https://10.0.0.1:6443`);
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new TulleError('bad-kubeconfig', `${source}: "${text}" begins with neither https:// nor http://`);
  }
  return `${url.origin}${url.pathname}`.replace(/\/+$/, '');
}

/** YAML errors draw a picture below the line that matters. */
function firstLine(error: unknown): string {
  return messageOf(error).split('\n')[0].replace(/\s+/g, ' ').trim();
}
