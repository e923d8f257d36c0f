// Puts deploy/tulle.yml together from the files of deploy/kustomize/base, in the order of its kustomization.yaml, so that
// "kubectl apply -f" and "kubectl apply -k" say the same. Node's own modules only: the base transforms nothing.
//   node scripts/build-manifest.mjs            writes it
//   node scripts/build-manifest.mjs --check    fails where it is not what it would write
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const base = join(root, 'deploy/kustomize/base');
const target = join(root, 'deploy/tulle.yml');
const HEAD = `# tulle in a Kubernetes cluster: "kubectl apply -f deploy/tulle.yml". What to set before is in docs/install.md.
# Made from deploy/kustomize/base by "node scripts/build-manifest.mjs": change it there.
`;

const kustomization = readFileSync(join(base, 'kustomization.yaml'), 'utf8');
const names = [...kustomization.matchAll(/^ {2}- (\S+\.yaml)$/gm)].map(match => match[1]);
const text = HEAD + names.map(name => `---\n${readFileSync(join(base, name), 'utf8')}`).join('');
if (!process.argv.includes('--check')) writeFileSync(target, text);
else if (readFileSync(target, 'utf8') !== text) {
  process.stderr.write(
    'tulle: deploy/tulle.yml is not what deploy/kustomize/base says: run "node scripts/build-manifest.mjs"\n',
  );
  process.exitCode = 1;
}
