// Bundles the live page into one HTML file, dist/page/tulle.html: script and style inside, no request to anywhere, so that it
// works from a server and from a disk. A content security policy names the two by their hashes; nothing else may run.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const hashOf = text => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** Checks the page's types, bundles it and writes the file; throws when the types are wrong. */
export async function buildPage(root) {
  const source = join(root, 'lib/observe/page');
  const output = join(root, 'dist/page');
  mkdirSync(output, { recursive: true });
  const check = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', source], {
    cwd: root,
    stdio: ['ignore', process.stderr, process.stderr],
  });
  if (check.status !== 0) throw new Error('the page does not compile: see the errors above');
  const { build } = await import('esbuild');
  const common = {
    bundle: true,
    minify: true,
    write: false,
    legalComments: 'none',
    logLevel: 'warning',
    absWorkingDir: root,
  };
  const [code, css] = await Promise.all([
    build({
      ...common,
      entryPoints: [join(source, 'main.tsx')],
      format: 'esm',
      target: 'es2022',
      jsx: 'automatic',
      jsxImportSource: 'preact',
      charset: 'utf8',
    }),
    build({
      ...common,
      stdin: {
        contents: "@import 'uplot/dist/uPlot.min.css'; @import './style.css';",
        loader: 'css',
        resolveDir: source,
      },
      charset: 'utf8',
    }),
  ]);
  // A "</script" in a string would end the element that holds it.
  const script = code.outputFiles[0].text.trim().replaceAll('</script', '<\\/script');
  const style = css.outputFiles[0].text.trim();
  const policy = [
    "default-src 'none'",
    `script-src ${hashOf(script)}`,
    `style-src ${hashOf(style)}`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  // Functions, because a replacement text may hold "$&".
  const html = readFileSync(join(source, 'index.html'), 'utf8')
    .replace('the policy', () => policy)
    .replace('<style></style>', () => `<style>${style}</style>`)
    .replace('<script type="module"></script>', () => `<script type="module">${script}</script>`);
  const path = join(output, 'tulle.html');
  writeFileSync(`${path}.new`, html);
  renameSync(`${path}.new`, path);
  return { path, bytes: html.length };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { path, bytes } = await buildPage(fileURLToPath(new URL('..', import.meta.url)));
  process.stderr.write(`tulle: ${path}, ${Math.round(bytes / 1024)} KB\n`);
}
