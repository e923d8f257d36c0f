/** flannel's objects in a cluster: the ConfigMap, the DaemonSet, and what goes with them. */
import { checkCni, checkNetConf } from './config.ts';
import { type Fields, type Findings, fieldsOf, listOf, type Proposal, textOf } from './finding.ts';
import { checkArguments, checkVariables } from './flags.ts';
import { parseJson } from './input.ts';

/** Kubernetes' own objects, and lists of them. Returns what of it is flannel's, merged into `proposal`. */
export function checkObject(object: Fields, source: string, findings: Findings, proposal: Proposal): void {
  const kind = textOf(object['kind']);
  const name = textOf(fieldsOf(object['metadata'])['name']);
  const where = `${source}, ${kind} ${name}`;
  const say = findings.at(where);
  if (kind === 'List')
    for (const item of listOf(object['items'])) checkObject(fieldsOf(item), source, findings, proposal);
  else if (kind === 'ConfigMap') checkConfigMap(fieldsOf(object['data']), where, findings, proposal);
  else if (kind === 'DaemonSet') checkDaemonSet(object, where, findings, proposal);
  else if (['ClusterRole', 'ClusterRoleBinding', 'ServiceAccount'].includes(kind))
    say('carries', kind, 'deploy/tulle.yml has its own, with the same permissions or fewer');
  else if (kind === 'Namespace')
    say('carries', kind, 'deploy/tulle.yml has its own, "tulle"; delete this one when flannel is gone');
  else if (kind === 'NetworkPolicy' || kind === 'Deployment')
    say('change', kind, 'nothing here takes its place: look at what it is for');
  else say('differs', kind === '' ? 'an object' : kind, 'not read: it says nothing that tulled needs');
}

function checkConfigMap(data: Fields, where: string, findings: Findings, proposal: Proposal): void {
  for (const [key, value] of Object.entries(data)) {
    const source = `${where}, ${key}`;
    const say = findings.at(source);
    const parsed = parseJson(textOf(value));
    if (key === 'net-conf.json' && parsed !== undefined) proposal.netConf = checkNetConf(parsed, source, findings);
    else if (key === 'cni-conf.json' && parsed !== undefined) proposal.cni = checkCni(parsed, source, findings);
    else if (['net-conf.json', 'cni-conf.json'].includes(key))
      say('change', key, 'it is no JSON object, so flannel cannot read it, either');
    else say('differs', key, 'not read by flannel, nor here');
  }
  if (data['net-conf.json'] === undefined && data['cni-conf.json'] === undefined)
    findings.at(where)('differs', 'ConfigMap', "it holds nothing of flannel's");
}

function checkDaemonSet(object: Fields, where: string, findings: Findings, proposal: Proposal): void {
  const say = findings.at(where);
  const pod = fieldsOf(fieldsOf(fieldsOf(object['spec'])['template'])['spec']);
  const daemon = listOf(pod['containers']).map(fieldsOf).find(isFlanneld);
  if (daemon === undefined) {
    say('differs', 'DaemonSet', 'none of its containers runs flanneld');
    return;
  }
  proposal.arguments = checkArguments(wordsOf(daemon), `${where}, flanneld`, findings);
  const variables = new Map<string, string>();
  for (const entry of listOf(daemon['env']).map(fieldsOf)) variables.set(textOf(entry['name']), textOf(entry['value']));
  checkVariables(variables, `${where}, flanneld`, findings);
  say('differs', 'image', 'of your own: deploy/Dockerfile makes it');
  const capabilities = fieldsOf(fieldsOf(daemon['securityContext'])['capabilities'])['add'];
  if (!listOf(capabilities).includes('SYS_ADMIN')) {
    say(
      'differs',
      'capabilities',
      "tulled also needs SYS_ADMIN, for it enters pods' namespaces itself; not where flannel's CNI plugin stays (deploy/kustomize/overlays/flannel-plugin)",
    );
  }
  const paths = listOf(pod['volumes']).map(volume => textOf(fieldsOf(fieldsOf(volume)['hostPath'])['path']));
  if (!paths.includes('/dev/net/tun'))
    say('differs', 'volumes', '/dev/net/tun is mounted by deploy/tulle.yml; the nodes must have it ("modprobe tun")');
  for (const key of ['affinity', 'nodeSelector', 'tolerations', 'imagePullSecrets', 'dnsPolicy'] as const) {
    if (pod[key] !== undefined && !isUsual(key, pod[key]))
      say(
        'change',
        key,
        'copy it to the DaemonSet of tulle, by a kustomization as in deploy/kustomize/overlays/example',
      );
  }
  say(
    'change',
    'DaemonSet',
    'delete it when deploy/tulle.yml takes over; two at once are refused (docs/from-flannel.md has the steps)',
  );
}

const wordsOf = (container: Fields): string[] => {
  const words = [...listOf(container['command']), ...listOf(container['args'])].map(textOf);
  return words.slice(words.findIndex(word => /(^|\/)flanneld$/.test(word)) + 1);
};

function isFlanneld(container: Fields): boolean {
  const words = [...listOf(container['command']), ...listOf(container['args'])].map(textOf);
  return words.some(word => /(^|\/)flanneld$/.test(word)) || words.some(word => /^--?kube-subnet-mgr\b/.test(word));
}

/** What flannel's own manifest says, which ours says in its way. */
function isUsual(key: string, value: unknown): boolean {
  const text = JSON.stringify(value);
  if (key === 'tolerations') return listOf(value).every(each => fieldsOf(each)['operator'] === 'Exists');
  if (key === 'affinity')
    return text.length < 400 && /"kubernetes\.io\/os".*"linux"/.test(text) && !/pod(Anti)?Affinity/i.test(text);
  if (key === 'nodeSelector')
    return Object.keys(fieldsOf(value)).every(name => /^(beta\.)?kubernetes\.io\/(os|arch)$/.test(name));
  return false;
}
