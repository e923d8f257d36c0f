import t from 'tap';
import { environmentName, flagGroups, flags } from '../../lib/daemon/flags.ts';
import { helpText } from '../../lib/daemon/help.ts';

const text = helpText();
const lines = text.split('\n');

t.test('every flag has its entry: head, help, default, example', async t => {
  for (const flag of flags) {
    const at = lines.findIndex(line => line.split(' ')[2] === `-${flag.name}`);
    t.ok(at > 0, flag.name);
    const rest = lines.slice(at + 1);
    const end = rest.findIndex(line => !line.startsWith('    '));
    const entry = [lines[at], ...rest.slice(0, end)];
    const flat = entry.map(line => line?.trim()).join(' ');
    t.ok(flat.includes(flag.help), `${flag.name}: help`);
    t.equal(entry.at(-1), `    Example: ${flag.example}`, `${flag.name}: example`);
    if (flag.unsupported !== undefined) t.ok(flat.includes(`Not supported yet: ${flag.unsupported}`), flag.name);
    if (flag.kind === 'string' && flag.default !== '') t.ok(flat.includes(`(default ${flag.default})`), flag.name);
    if (flag.name !== 'help' && flag.name !== 'version') t.ok(flat.includes(`[${environmentName(flag)}]`), flag.name);
  }
});

t.test('every group is there, in order; no line is too wide, none ends in a space', async t => {
  const heads = lines.filter(line => /^[A-Z].*:$/.test(line)).map(line => line.slice(0, -1));
  t.same(heads, Object.values(flagGroups));
  for (const line of lines) {
    t.ok(line.length <= 120, `${line.length}: ${line}`);
    t.notMatch(line, / $/);
  }
});

t.test('one entry, to the letter', async t => {
  const expected = `
  -subnet-lease-renew-margin MINUTES [FLANNELD_SUBNET_LEASE_RENEW_MARGIN]
    renew the lease this many minutes before it ends (1 to 1439) (default 60)
    Example: -subnet-lease-renew-margin=120

  -lease-ttl DURATION [TULLED_LEASE_TTL]
    how long the lease lives without a renewal (default 24h)
    Example: --lease-ttl=10m
`;
  t.ok(text.includes(expected), expected);
});
