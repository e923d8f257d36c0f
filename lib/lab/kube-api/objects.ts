/**
 * The objects of the lab's API server, and the answers that say no: the shapes and the texts are those of Kubernetes
 * (apimachinery, pkg/api/errors/errors.go), because clients read them.
 */
export interface ObjectMeta {
  name: string;
  namespace?: string;
  uid: string;
  resourceVersion: string;
  creationTimestamp: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  [other: string]: unknown;
}

/** A Node, a Pod: what the server keeps without looking into it more than it must. */
export interface ApiObject {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
  spec?: Record<string, unknown>;
  status?: Record<string, unknown>;
  [other: string]: unknown;
}

/** What the server knows: two resources of the core group are enough for a node daemon. */
export interface Resource {
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

export const RESOURCES: Readonly<Record<string, Resource>> = {
  nodes: { plural: 'nodes', kind: 'Node', namespaced: false },
  pods: { plural: 'pods', kind: 'Pod', namespaced: true },
};

/** An answer that says no: a Status object with its HTTP code. */
export class ApiError extends Error {
  readonly code: number;
  readonly reason: string;
  readonly more: Record<string, unknown>;
  readonly headers: Record<string, string>;

  constructor(
    code: number,
    reason: string,
    message: string,
    more: Record<string, unknown> = {},
    headers: Record<string, string> = {},
  ) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.more = more;
    this.headers = headers;
  }

  get status(): object {
    const { code, reason, message, more } = this;
    return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code, ...more };
  }
}

export function notFound({ plural }: Resource, name: string): ApiError {
  return new ApiError(404, 'NotFound', `${plural} "${name}" not found`, { details: { name, kind: plural } });
}

export function alreadyExists({ plural }: Resource, name: string): ApiError {
  return new ApiError(409, 'AlreadyExists', `${plural} "${name}" already exists`, { details: { name, kind: plural } });
}

export function conflict({ plural }: Resource, name: string): ApiError {
  const text = 'the object has been modified; please apply your changes to the latest version and try again';
  const message = `Operation cannot be fulfilled on ${plural} "${name}": ${text}`;
  return new ApiError(409, 'Conflict', message, { details: { name, kind: plural } });
}

export function badRequest(message: string): ApiError {
  return new ApiError(400, 'BadRequest', message);
}

export function invalid({ kind }: Resource, name: string, what: string): ApiError {
  return new ApiError(422, 'Invalid', `${kind} "${name}" is invalid: ${what}`, { details: { name, kind } });
}

export function unauthorized(): ApiError {
  return new ApiError(401, 'Unauthorized', 'Unauthorized');
}

/** As the RBAC authorizer's refusal reads (apiserver, endpoints/handlers/responsewriters/errors.go). */
export function forbidden(user: string, verb: string, resource: string, name: string, namespace: string): ApiError {
  const [plural] = resource.split('/');
  const scope = namespace === '' ? 'at the cluster scope' : `in the namespace "${namespace}"`;
  const object = name === '' ? plural : `${plural} "${name}"`;
  const message = `${object} is forbidden: User "${user}" cannot ${verb} resource "${resource}" in API group "" ${scope}`;
  return new ApiError(403, 'Forbidden', message, { details: { ...(name !== '' && { name }), kind: plural } });
}

/** A watch, or a list that goes on, from a revision that was compacted. */
export function expired(message: string, metadata: object = {}): ApiError {
  return new ApiError(410, 'Expired', message, { metadata });
}

export function tooManyRequests(retryAfterSeconds: number): ApiError {
  const message = 'Too many requests, please try again later.';
  return new ApiError(
    429,
    'TooManyRequests',
    message,
    { details: { retryAfterSeconds } },
    { 'retry-after': String(retryAfterSeconds) },
  );
}
