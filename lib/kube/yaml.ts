/** YAML documents, as kubectl prints and takes them, by the reader that the client brings along. */
import { loadYaml } from '@kubernetes/client-node';
import { TulleError } from '../util/errors.ts';

/** The documents of a text; empty ones are left out. Throws what the reader throws, and TulleError 'anchors'. */
export function readYaml(text: string): unknown[] {
  // A few anchors within each other become more objects than there is memory; manifests need none.
  if (/(?:^|[\s:,[-])&\w[\w-]*(?:\s|$)/m.test(text)) {
    throw new TulleError('anchors', 'anchors ("&name") are not read: give what "kubectl get -o json" prints');
  }
  return text
    .split(/^---(?:[ \t].*)?$/m)
    .filter(part => part.split('\n').some(line => line.trim() !== '' && !line.trim().startsWith('#')))
    .map(part => loadYaml(part));
}
