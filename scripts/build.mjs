// Compiles TypeScript into dist/, the live page into dist/page/ and the addon into build/: what `npm run build` runs.
import { fileURLToPath } from 'node:url';
import { buildTypeScript, ensureAddon, ensureCniPlugin, ensureDependencies, ensurePage } from './prepare.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
ensureDependencies(root);
ensureAddon(root);
ensureCniPlugin(root);
buildTypeScript(root);
ensurePage(root);
