// Where etcd is and what proves who we are: endpoints, certificates, user and password, checked before the first call.
import { readFileSync } from 'node:fs';
import { codeOf, TulleError } from '../lib/util/errors.ts';

/** flanneld's -etcd-… flags. A CA alone is enough for TLS; the client certificate and its key come as a pair. */
export interface EtcdAddress {
  /** http://host:port or https://host:port; a bare host:port is http, no port is 2379. */
  endpoints: string[];
  caFile?: string;
  certFile?: string;
  keyFile?: string;
  username?: string;
  password?: string;
}

export interface Endpoint {
  /** "https://10.88.0.1:2379": what messages show. */
  url: string;
  secure: boolean;
}

/** PEM bytes. ca undefined: the certificates that Node.js trusts. */
export interface Certificates {
  ca?: Buffer;
  cert?: Buffer;
  key?: Buffer;
}

const endpointPattern = /^(?:(https?):\/\/)?(\[[0-9a-fA-F:.]+(?:%\w+)?\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?\/?$/;

/** Throws TulleError 'bad-config'. A malformed endpoint may hold a password, so the message names its place, not its text. */
export function parseEndpoints(texts: readonly string[]): Endpoint[] {
  if (texts.length === 0)
    throw new TulleError('bad-config', 'no etcd endpoint: give at least one, as http://host:2379');
  return texts.map((text, index) => {
    const match = endpointPattern.exec(text.trim());
    const port = Number(match?.[3] ?? 2379);
    if (match === null || port < 1 || port > 65535) {
      const which = `etcd endpoint ${index + 1} of ${texts.length}`;
      throw new TulleError('bad-config', `${which} is not of the form http://host:2379 or https://host:2379`);
    }
    const scheme = match[1] ?? 'http';
    return { url: `${scheme}://${match[2]}:${port}`, secure: scheme === 'https' };
  });
}

/** Reads the PEM files. Throws TulleError 'bad-config' that names the file. */
export function readCertificates({ caFile, certFile, keyFile }: EtcdAddress): Certificates {
  if ((certFile === undefined) !== (keyFile === undefined)) {
    const missing = certFile === undefined ? 'certificate file' : 'key file';
    throw new TulleError(
      'bad-config',
      `etcd's client certificate and its key come as a pair: the ${missing} is missing`,
    );
  }
  const certificates: Certificates = {};
  if (caFile !== undefined) certificates.ca = readPem('CA', caFile);
  if (certFile !== undefined) certificates.cert = readPem('certificate', certFile);
  if (keyFile !== undefined) certificates.key = readPem('key', keyFile);
  return certificates;
}

function readPem(what: string, path: string): Buffer {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new TulleError('bad-config', `cannot read etcd's ${what} file ${path}: ${codeOf(error) ?? 'unreadable'}`);
  }
  if (!bytes.includes('-----BEGIN ')) {
    throw new TulleError('bad-config', `etcd's ${what} file ${path} holds no PEM text ("-----BEGIN …")`);
  }
  return bytes;
}
