/**
 * deploy/Dockerfile, as far as it can be tried without a container engine: it is read, what it copies exists, and its build
 * stage is run: the very same commands, in a clean folder that holds what was copied and nothing else. Only packages are not
 * fetched again: npm's come from this clone, Debian's are here or they are not.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import { environmentName, flags } from '../../lib/daemon/flags.ts';
import { version } from '../../lib/util/version.ts';
import { environment } from '../daemon/process.ts';
import { root } from '../sys/support.ts';

t.setTimeout(240_000);
const STEP_MS = 180_000;

interface Instruction {
  name: string;
  text: string;
}

/** Comments gone, continued lines joined. */
function readDockerfile(): Instruction[] {
  const text = readFileSync(join(root, 'deploy/Dockerfile'), 'utf8')
    .replace(/^#.*\n/gm, '')
    .replace(/\\\n\s*/g, ' ');
  return text
    .split('\n')
    .filter(line => line.trim() !== '')
    .map(line => {
      const match = /^([A-Z]+)\s+(.*)$/.exec(line);
      if (match === null) throw new Error(`not an instruction: ${line}`);
      return { name: match[1], text: match[2] };
    });
}

const instructions = readDockerfile();
const second = instructions.findLastIndex(({ name }) => name === 'FROM');
const stages = { build: instructions.slice(0, second), last: instructions.slice(second) };

t.test('it reads as one', async t => {
  const known = ['ARG', 'FROM', 'RUN', 'WORKDIR', 'COPY', 'LABEL', 'ENV', 'HEALTHCHECK', 'USER', 'ENTRYPOINT'];
  t.same(
    instructions.filter(({ name }) => !known.includes(name)),
    [],
  );
  const from = instructions.filter(({ name }) => name === 'FROM').map(({ text }) => text);
  t.equal(from.length, 2);
  t.match(
    from[0],
    /^--platform=\$BUILDPLATFORM node:\$\{NODE_VERSION\}-bookworm-slim AS build$/,
    'compiled on the machine that builds',
  );
  t.match(from[1], /^node:\$\{NODE_VERSION\}-bookworm-slim$/, 'the ordinary name, no registry');
  for (const name of ['LABEL', 'HEALTHCHECK', 'USER', 'ENTRYPOINT'])
    t.equal(stages.last.filter(each => each.name === name).length, 1, name);
  t.same(JSON.parse(stages.last.find(({ name }) => name === 'ENTRYPOINT')?.text ?? '[]'), ['tulled']);
  t.match(
    stages.last.find(({ name, text }) => name === 'ARG' && text.startsWith('VERSION'))?.text,
    `VERSION=${version()}`,
  );
  const variables = instructions
    .filter(({ name }) => name === 'ENV')
    .flatMap(({ text }) => [...text.matchAll(/(FLANNELD_\w+|TULLED_\w+)=/g)].map(match => match[1]));
  t.ok(variables.length > 0);
  t.same(
    variables.filter(name => !flags.some(flag => environmentName(flag) === name)),
    [],
    'variables that tulled knows',
  );
  const [, healthCheck] =
    /CMD (\[.*\])$/.exec(stages.last.find(({ name }) => name === 'HEALTHCHECK')?.text ?? '') ?? [];
  const [command, ...args] = JSON.parse(healthCheck);
  const closed = spawnSync(command, args, { env: { ...environment, FLANNELD_HEALTHZ_PORT: '1' }, timeout: 30_000 });
  t.equal(closed.status, 1, 'nobody listens: not healthy');
});

t.test('what is copied is there, and is let through', async t => {
  const ignore = readFileSync(join(root, 'deploy/Dockerfile.dockerignore'), 'utf8')
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'));
  t.equal(ignore[0], '*');
  const sources = stages.build
    .filter(({ name }) => name === 'COPY')
    .flatMap(({ text }) => text.split(/\s+/).slice(0, -1));
  t.ok(sources.length > 5);
  for (const source of sources) t.ok(existsSync(join(root, source)), source);
  t.same(
    ignore
      .slice(1)
      .map(line => line.slice(1))
      .sort(),
    [...sources].sort(),
  );
});

t.test(
  'the build stage, in a clean folder',
  { skip: spawnSync('gcc', ['--version']).status !== 0 && 'SKIPPED: no C compiler' },
  async t => {
    const home = mkdtempSync(join(tmpdir(), 'tulle-image-'));
    t.teardown(() => rmSync(home, { recursive: true, force: true }));
    const [src, image] = [join(home, 'src'), join(home, 'image')];
    mkdirSync(src);
    const run = (command: string): void => {
      const { status, stderr, stdout } = spawnSync('sh', ['-c', command], {
        cwd: src,
        env: environment,
        encoding: 'utf8',
        timeout: STEP_MS,
      });
      t.equal(status, 0, `${command}\n${stdout}${stderr}`);
    };
    for (const { name, text } of stages.build) {
      if (name === 'COPY') {
        const words = text.split(/\s+/);
        const to = words.pop() as string;
        for (const from of words)
          cpSync(join(root, from), to.endsWith('/') ? join(src, to, basename(from)) : join(src, to), {
            recursive: true,
            preserveTimestamps: true,
          });
      } else if (name === 'RUN' && text.startsWith('npm ci')) {
        // The same packages as hard links; what is pruned below is pruned here only.
        run(
          `cp -al "${join(root, 'node_modules')}" node_modules && cp node_modules/.package-lock.json .lock && mv .lock node_modules/.package-lock.json`,
        );
      } else if (name === 'RUN' && !text.includes('apt-get')) {
        const only = spawnSync('aarch64-linux-gnu-gcc', ['--version']).status === 0 ? '' : ` ${process.arch}`;
        run(text.replace('scripts/prebuild.mjs', `scripts/prebuild.mjs${only}`));
      }
    }
    for (const { name, text } of stages.last) {
      if (name !== 'COPY') continue;
      const words = text.split(/\s+/).slice(1);
      const to = join(image, words.pop() as string);
      for (const from of words) {
        const source = from.replace('/src', src);
        cpSync(source, words.length > 1 ? join(to, basename(source)) : to, { recursive: true });
      }
    }
    const package_ = join(image, 'opt/tulle');
    t.same(readdirSync(package_).sort(), ['LICENSE', 'README.md', 'dist', 'node_modules', 'package.json', 'prebuilds']);
    for (const name of ['typescript', 'tap', 'kubernetes-models', 'raw-socket'])
      t.notOk(existsSync(join(package_, 'node_modules', name)), `${name} stays behind`);
    const program = (name: string, args: string[], more: Record<string, string> = {}) =>
      spawnSync(process.execPath, [join(package_, 'dist/cmd', name), ...args], {
        env: { ...environment, ...more },
        encoding: 'utf8',
        timeout: 30_000,
        input: '',
      });
    t.match(program('tulled.js', ['--version']), { status: 0, stdout: `${version()}\n` });
    t.match(program('tulle.js', ['--help']), { status: 0, stdout: /^tulle: / });
    const folders = ['--bin-dir', join(home, 'bin'), '--conf-dir', join(home, 'conf')];
    t.match(
      program('tulle.js', ['cni', 'install', ...folders]).stdout,
      /tulle-cni \(C\)/,
      'the plugin of this architecture is found',
    );
    const lease = ['-etcd-endpoints=http://127.0.0.1:1', '-healthz-port=0'];
    const refused = program('tulle.js', ['lease', 'ls', lease[0]]);
    t.equal(refused.status, 1, 'what talks to etcd loads what it needs');
    t.match(refused.stderr, /^tulle: .*127\.0\.0\.1:1/);
  },
);
