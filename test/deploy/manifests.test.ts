// deploy/tulle.yml and the kustomizations: the schemas, that they agree, and that what they say is so in the programs.
import { spawnSync } from 'node:child_process';
import { chownSync, cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { DEFAULT_BIN_DIRECTORY, DEFAULT_CONF_DIRECTORY } from '../../lib/cni/install.ts';
import { startHealth } from '../../lib/daemon/health.ts';
import { readNetwork } from '../../lib/daemon/network.ts';
import { daemonOptions } from '../../lib/daemon/options.ts';
import { parseFlags } from '../../lib/daemon/parse-flags.ts';
import { version } from '../../lib/util/version.ts';
import { environment } from '../daemon/process.ts';
import { root } from '../sys/support.ts';
import {
  argumentsOf,
  hasKubectl,
  kustomize,
  manifest,
  OVERLAYS,
  ofKind,
  podOf,
  readObjects,
  tulledOf,
} from './manifests.ts';
import { type KubernetesObject, problemsOf } from './schema.ts';

t.setTimeout(120_000);
const noKubectl = !hasKubectl && 'SKIPPED: no kubectl here';
const NEEDS_ROOT = 'SKIPPED: needs root and setpriv of util-linux';

t.test('the one file is what the base says', async t => {
  const check = spawnSync(process.execPath, [join(root, 'scripts/build-manifest.mjs'), '--check'], {
    encoding: 'utf8',
  });
  t.equal(check.status, 0, check.stderr);
  const key = ({ kind, metadata }: KubernetesObject): string => `${kind}/${metadata.name}`;
  const sorted = (objects: KubernetesObject[]): KubernetesObject[] =>
    objects.sort((a, b) => (key(a) < key(b) ? -1 : 1));
  t.same(
    manifest().map(({ kind }) => kind),
    ['Namespace', 'ServiceAccount', 'ClusterRole', 'ClusterRoleBinding', 'ConfigMap', 'DaemonSet'],
    'in an order in which each can be made',
  );
  if (hasKubectl) t.same(sorted(kustomize('base')), sorted(manifest()));
});

t.test('the schemas', async t => {
  for (const object of manifest()) t.same(problemsOf(object), [], object.kind);
  // The check can fail: a field that is spelt wrong, one of the wrong type, one that is missing.
  const broken = (change: (object: KubernetesObject) => void): string[] => {
    const object = structuredClone(ofKind(manifest(), 'DaemonSet'));
    change(object);
    return problemsOf(object);
  };
  t.same(
    broken(({ spec }) => {
      spec.template.spec.containers[0].securityContext.capabilites = {};
    }),
    ['DaemonSet: there is no field /spec/template/spec/containers/0/securityContext/capabilites'],
  );
  t.match(
    broken(({ spec }) => {
      spec.template.spec.hostNetwork = 'yes';
    }),
    [/hostNetwork type.*boolean/],
  );
  t.match(
    broken(({ spec }) => {
      delete spec.selector;
    }),
    [/spec required.*selector/],
  );
  t.throws(() => readObjects('a: 1\na: 2\n'), /unique/);
});

t.test('kubectl reads them, without a cluster', { skip: noKubectl }, async t => {
  for (const overlay of OVERLAYS)
    for (const object of kustomize(`overlays/${overlay}`)) t.same(problemsOf(object), [], `${overlay}: ${object.kind}`);
  for (const object of manifest()) {
    const label = ['label', '--local', '--dry-run=client', '-f', '-', 'tried=yes', '-o', 'json'];
    const read = spawnSync('kubectl', label, { input: JSON.stringify(object), encoding: 'utf8', timeout: 60_000 });
    t.equal(read.status, 0, `${object.kind}: ${read.stderr}`);
    const { metadata, ...rest } = JSON.parse(read.stdout);
    t.match({ ...rest, name: metadata.name }, { ...object, metadata: undefined, name: object.metadata.name });
  }
  // The typed decoder of kubectl's own: no server is asked.
  const input = JSON.stringify(ofKind(manifest(), 'DaemonSet'));
  const args = ['set', 'image', '--local', '--dry-run=client', '-f', '-', 'tulled=other:1', '-o', 'json'];
  const { status, stdout, stderr } = spawnSync('kubectl', args, { input, encoding: 'utf8', timeout: 60_000 });
  t.equal(status, 0, stderr);
  t.equal(tulledOf([JSON.parse(stdout)]).image, 'other:1');
  t.match(JSON.parse(stdout).spec.template.spec.tolerations, [{ operator: 'Exists' }]);
});

t.test('every flag is one of tulled, and means what the rest of the pod offers', async t => {
  const parsed = parseFlags(argumentsOf(manifest()), {});
  const { values, warnings } = parsed;
  t.same(warnings, []);
  t.match(daemonOptions(parsed).registry, { kind: 'kubernetes' });
  t.equal(values['kube-subnet-mgr'], true);
  const { volumeMounts, livenessProbe, readinessProbe, env } = tulledOf(manifest());
  t.equal(env[0].valueFrom.fieldRef.fieldPath, 'spec.nodeName');

  for (const [probe, path] of [
    [livenessProbe, '/healthz'],
    [readinessProbe, '/readyz'],
  ])
    t.match(probe.httpGet, { host: values['healthz-ip'], port: values['healthz-port'], path });
  const health = await startHealth('127.0.0.1', 0);
  for (const path of ['/healthz', '/readyz']) {
    const { status } = await fetch(`http://127.0.0.1:${health.port}${path}`);
    t.not(status, 404, path);
  }
  await health.close();

  const writable = volumeMounts
    .filter((mount: KubernetesObject) => mount.readOnly !== true)
    .map((mount: KubernetesObject) => mount.mountPath);
  const lies = (path: string, folders: string[]): boolean =>
    folders.some(folder => path === folder || path.startsWith(`${folder}/`));
  for (const name of ['subnet-file', 'state-dir', 'cni-socket', 'cni-data-dir'] as const)
    t.ok(lies(values[name], writable), name);
  // What must be there again after a reboot, and what must not.
  t.ok(lies(values['cni-data-dir'], ['/var/lib']));
  t.ok(lies(values['cni-socket'], ['/run']));

  const config = volumeMounts.find((mount: KubernetesObject) => mount.name === 'config');
  const netConf = values['net-config-path'];
  t.equal(dirname(netConf), config.mountPath);
  const { data } = ofKind(manifest(), 'ConfigMap');
  const file = basename(netConf);
  t.equal(readNetwork(data[file], file).backend.type, 'tulle');
});

t.test('the init container is one command that works', async t => {
  const [{ command, args, volumeMounts }] = podOf(manifest()).initContainers;
  t.same(command, ['tulle', 'cni', 'install']);
  const mounts = volumeMounts.map((mount: KubernetesObject) => mount.mountPath);
  for (const folder of [DEFAULT_BIN_DIRECTORY, DEFAULT_CONF_DIRECTORY, '/etc/tulle'])
    t.ok(mounts.includes(folder), folder);
  const node = t.testdir({ etc: {} });
  const { data } = ofKind(manifest(), 'ConfigMap');
  for (const [name, text] of Object.entries<string>(data)) writeFileSync(join(node, 'etc', name), text);
  const folders = ['--bin-dir', join(node, 'bin'), '--conf-dir', join(node, 'conf')];
  const tulle = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));
  const words = [
    ...command.slice(1),
    ...args.map((arg: string) => arg.replace('/etc/tulle', join(node, 'etc'))),
    ...folders,
  ];
  for (const round of ['first', 'second']) {
    const { status, stderr } = spawnSync(process.execPath, [tulle, ...words], { encoding: 'utf8', env: environment });
    t.equal(status, 0, `${round}: ${stderr}`);
  }
  t.same(readdirSync(join(node, 'conf')), ['10-tulle.conflist']);
  const conflist = JSON.parse(readFileSync(join(node, 'conf/10-tulle.conflist'), 'utf8'));
  t.match(conflist, { cniVersion: String, name: 'tulle', plugins: [{ type: 'tulle-cni' }] });
  t.ok(existsSync(join(node, 'bin', conflist.plugins[0].type)));
});

const isRoot = process.getuid?.() === 0 && spawnSync('setpriv', ['--version']).status === 0;

t.test("the init container writes into a folder that is another user's", { skip: !isRoot && NEEDS_ROOT }, async t => {
  const node = t.testdir({ bin: {}, conf: {} });
  for (const name of ['bin', 'conf']) chownSync(join(node, name), 12_345, 12_345);
  const [{ securityContext }] = podOf(manifest()).initContainers;
  const install = (capabilities: string[]) => {
    const set = ['-all', ...capabilities.map(name => `+${name.toLowerCase()}`)].join(',');
    const tulle = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));
    const folders = ['--bin-dir', join(node, 'bin'), '--conf-dir', join(node, 'conf')];
    const words = ['--no-new-privs', `--bounding-set=${set}`, '--inh-caps=-all', process.execPath, tulle];
    return spawnSync('setpriv', [...words, 'cni', 'install', ...folders], { encoding: 'utf8', env: environment });
  };
  const refused = install([]);
  t.not(refused.status, 0, 'root without capabilities is a user like any other');
  t.match(refused.stderr, /EACCES|permission/i);
  const { status, stderr } = install(securityContext.capabilities.add);
  t.equal(status, 0, stderr);
  t.same(readdirSync(join(node, 'bin')), ['tulle-cni']);
});

t.test('no more than is needed', async t => {
  const pod = podOf(manifest());
  for (const { name, securityContext } of [...pod.initContainers, ...pod.containers]) {
    t.match(
      securityContext,
      { readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
      name,
    );
    t.notOk(securityContext.privileged, name);
  }
  t.same(
    tulledOf(manifest()).securityContext.capabilities.add,
    ['NET_ADMIN', 'NET_RAW', 'SYS_ADMIN'],
    'test/deploy/container.test.ts tries them',
  );
  t.same(
    pod.initContainers[0].securityContext.capabilities.add,
    ['DAC_OVERRIDE'],
    "for a folder that is another user's",
  );
  t.same(pod.securityContext.seLinuxOptions, { type: 'spc_t' }, "or SELinux shuts the node's folders and the device");
  t.notOk(pod.hostPID || pod.hostIPC);
  const mounted = [...pod.initContainers, ...pod.containers].flatMap(({ volumeMounts }: KubernetesObject) =>
    volumeMounts.map((mount: KubernetesObject) => mount.name),
  );
  const volumes = pod.volumes.map((volume: KubernetesObject) => volume.name);
  t.same([...new Set(mounted)].sort(), [...volumes].sort(), 'every volume is mounted and there is one for every mount');
  const hostPaths = pod.volumes.flatMap((volume: KubernetesObject) => volume.hostPath ?? []);
  for (const { path, type } of hostPaths) t.ok(type, `${path}: without a type nothing is checked`);
  t.match(
    hostPaths.find(({ path }: KubernetesObject) => path === '/dev/net/tun'),
    { type: 'CharDevice' },
  );
  const netns = tulledOf(manifest()).volumeMounts.find((mount: KubernetesObject) => mount.name === 'netns');
  t.equal(netns.mountPropagation, 'HostToContainer', 'or pods that have gone would live on in here');
});

t.test('the permissions are the verbs that lib/kube uses', async t => {
  const used = new Set<string>();
  const folder = join(root, 'lib/kube');
  for (const name of readdirSync(folder)) {
    const text = readFileSync(join(folder, name), 'utf8');
    for (const [, verb, resource] of text.matchAll(/verb: '(\w+)', resource: '([\w/]+)'/g))
      used.add(`${verb} ${resource}`);
  }
  used.delete('get pods'); // only without NODE_NAME, which the DaemonSet gives
  t.ok(tulledOf(manifest()).env.some(({ name }: KubernetesObject) => name === 'NODE_NAME'));
  const { rules } = ofKind(manifest(), 'ClusterRole');
  const allowed = rules.flatMap(({ apiGroups, resources, verbs }: KubernetesObject) => {
    t.same(apiGroups, ['']);
    return resources.flatMap((resource: string) => verbs.map((verb: string) => `${verb} ${resource}`));
  });
  t.same(allowed.sort(), [...used].sort());
  const binding = ofKind(manifest(), 'ClusterRoleBinding');
  t.equal(binding.roleRef.name, ofKind(manifest(), 'ClusterRole').metadata.name);
  t.same(binding.subjects, [
    { kind: 'ServiceAccount', name: podOf(manifest()).serviceAccountName, namespace: 'tulle' },
  ]);
});

t.test('names, labels and versions belong together', async t => {
  const objects = manifest();
  const namespace = ofKind(objects, 'Namespace');
  t.equal(
    namespace.metadata.labels['pod-security.kubernetes.io/enforce'],
    'privileged',
    'hostPath and hostNetwork are allowed by nothing else',
  );
  for (const { kind, metadata } of objects) {
    if (!['Namespace', 'ClusterRole', 'ClusterRoleBinding'].includes(kind))
      t.equal(metadata.namespace, namespace.metadata.name, kind);
  }
  const set = ofKind(objects, 'DaemonSet');
  t.same(set.spec.selector.matchLabels, set.spec.template.metadata.labels);
  t.match(set.spec, { updateStrategy: { rollingUpdate: { maxUnavailable: 1 } } });
  t.match(set.spec.template.spec, {
    hostNetwork: true,
    priorityClassName: 'system-node-critical',
    tolerations: [{ operator: 'Exists' }],
  });
  for (const { image } of [...set.spec.template.spec.initContainers, ...set.spec.template.spec.containers])
    t.equal(image, `tulle:${version()}`);
});

t.test('the overlays change what they say and nothing else', { skip: noKubectl }, async t => {
  const [example, privileged, plugin] = OVERLAYS.map(name => kustomize(`overlays/${name}`));
  t.equal(tulledOf(example).image, `registry.example/tulle:${version()}`);
  t.same(tulledOf(example).args, [...tulledOf(manifest()).args, '-iface=eth0']);
  t.match(ofKind(example, 'ConfigMap').data['net-conf.json'], '10.42.0.0/16');
  t.ok(ofKind(example, 'ConfigMap').data['cni-conf.json']);
  t.same(tulledOf(privileged).securityContext, { privileged: true, runAsUser: 0, readOnlyRootFilesystem: true });
  t.same(tulledOf(plugin).securityContext.capabilities, { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] });
  t.same(podOf(plugin).initContainers ?? [], []);
  const { values } = parseFlags(argumentsOf(plugin), {});
  for (const each of [example, privileged, plugin]) t.ok(daemonOptions(parseFlags(argumentsOf(each), {})));
  t.equal(values['cni-socket'], '', 'pods are not plugged in by us');
  t.equal(values['subnet-file'], '/run/flannel/subnet.env', "where flannel's plugin looks");
  t.ok(tulledOf(plugin).volumeMounts.some((mount: KubernetesObject) => mount.mountPath === '/run/flannel'));
  t.notOk(tulledOf(plugin).volumeMounts.some((mount: KubernetesObject) => mount.name === 'netns'));
  t.same(
    podOf(plugin)
      .volumes.map((volume: KubernetesObject) => volume.name)
      .sort(),
    [...new Set(tulledOf(plugin).volumeMounts.map((mount: KubernetesObject) => mount.name))].sort(),
  );
});

t.test("moving from flannel: two overlays that agree but for flannel's plugin", { skip: noKubectl }, async t => {
  const commands = readFileSync(join(root, 'docs/from-flannel.md'), 'utf8').match(/cd deploy\/kustomize[^`]*/)?.[0];
  const clone = t.testdir({});
  cpSync(join(root, 'deploy/kustomize'), join(clone, 'deploy/kustomize'), { recursive: true });
  const { status, stderr } = spawnSync('sh', ['-ec', commands ?? 'false'], { cwd: clone, encoding: 'utf8' });
  t.equal(status, 0, stderr);
  const [own, plugin] = ['mine', 'mine-flannel-plugin'].map(name => kustomize(`overlays/${name}`, clone));
  for (const objects of [own, plugin]) {
    t.equal(tulledOf(objects).image, `registry.example/tulle:${version()}`);
    t.match(ofKind(objects, 'ConfigMap').data['net-conf.json'], '10.42.0.0/16');
  }
  t.equal(podOf(own).initContainers.length, 1);
  t.same(podOf(plugin).initContainers, []);
});
