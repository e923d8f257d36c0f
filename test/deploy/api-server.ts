/**
 * A cluster for one container: an API server on this namespace's loopback with a node "node1", that allows its client what the
 * manifest's ClusterRole allows and nothing else. It is asked by messages: any message is answered with the node as it is
 * and with what was refused.
 */
import { RESOURCES } from '../../lib/lab/kube-api/objects.ts';
import { startKubeApi } from '../../lib/lab/kube-api/server.ts';
import { manifest, ofKind } from './manifests.ts';
import type { KubernetesObject } from './schema.ts';

const [, , token, podCIDR] = process.argv;
const { rules } = ofKind(manifest(), 'ClusterRole');
const refused: string[] = [];
const api = await startKubeApi({
  host: '127.0.0.1',
  port: 0,
  tokens: new Map([[token, 'system:serviceaccount:tulle:tulle']]),
  authorize: (_user, { verb, resource }) => {
    const allowed = rules.some(
      (rule: KubernetesObject) => rule.resources.includes(resource) && rule.verbs.includes(verb),
    );
    if (!allowed) refused.push(`${verb} ${resource}`);
    return allowed;
  },
});
api.store.create(RESOURCES['nodes'], {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'node1', uid: '', resourceVersion: '', creationTimestamp: '' },
  spec: { podCIDR, podCIDRs: [podCIDR] },
  status: { conditions: [{ type: 'NetworkUnavailable', status: 'True', reason: 'NoNetwork', message: '' }] },
});
process.on('message', () => {
  const node = api.store.get(RESOURCES['nodes'], '', 'node1');
  process.send?.({ node, refused });
});
process.on('disconnect', () => process.exit());
process.send?.({ url: api.url });
