/** Which tulle this is. */
import { readFileSync } from 'node:fs';

/** The package's, from the package.json above this file: dist/lib/daemon in the package, another place in a test. */
export function version(): string {
  for (let folder = new URL('../', import.meta.url); ; folder = new URL('../', folder)) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL('package.json', folder), 'utf8'));
      if (name === 'tulle') return version;
    } catch {
      // not here
    }
    if (folder.pathname === '/') return 'unknown';
  }
}
