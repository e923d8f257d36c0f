import t from 'tap';
import { environmentName, type FlagSpec, flags } from '../../lib/daemon/flags.ts';
import { nearest, parseDuration, parseFlags } from '../../lib/daemon/parse-flags.ts';

const parse = (...args: string[]) => parseFlags(args, {});

/** A text that a supported flag accepts and what it becomes, never its default. */
function sample(flag: FlagSpec): { text: string; value: unknown } {
  switch (flag.kind) {
    case 'boolean':
      return { text: String(!flag.default), value: !flag.default };
    case 'integer':
      return { text: '7', value: 7 };
    case 'duration':
      return { text: '1h30m', value: 5_400_000 };
    case 'repeatable':
      return { text: 'one', value: ['one'] };
    case 'string': {
      const text = flag.choices?.find(choice => choice !== flag.default) ?? 'text';
      return { text, value: text };
    }
  }
}

t.test('nothing given: every default, nothing marked as given', async t => {
  const { values, given, warnings } = parseFlags([], { PATH: '/bin', FLANNELD_IFACE: '' });
  t.same(values, Object.fromEntries(flags.map(flag => [flag.name, flag.default])));
  t.equal(given.size, 0);
  t.same(warnings, []);
});

t.test('each supported flag, in every form', async t => {
  for (const flag of flags.filter(flag => flag.unsupported === undefined)) {
    const { text, value } = sample(flag);
    const forms = [[`-${flag.name}=${text}`], [`--${flag.name}=${text}`]];
    if (flag.kind !== 'boolean') forms.push([`-${flag.name}`, text], [`--${flag.name}`, text]);
    else if (flag.default === false) forms.push([`-${flag.name}`], [`--${flag.name}`]);
    for (const form of forms) {
      const parsed = parse(...form);
      t.same(parsed.values[flag.name], value, form.join(' '));
      t.same([...parsed.given], [[flag.name, `-${flag.name}`]]);
    }

    const variable = environmentName(flag);
    const fromEnvironment = parseFlags([], { [variable]: text });
    t.same(fromEnvironment.values[flag.name], value, `${variable}=${text}`);
    t.same([...fromEnvironment.given], [[flag.name, variable]]);

    // The command line wins, also with the default value.
    if (flag.kind === 'repeatable') continue;
    const both = parseFlags([`-${flag.name}=${flag.kind === 'duration' ? `${flag.default}ms` : flag.default}`], {
      [variable]: text,
    });
    t.same(both.values[flag.name], flag.default, `the command line wins over ${variable}`);
  }
});

t.test('each unsupported flag is refused by name, unless it says what is so anyway', async t => {
  for (const flag of flags.filter(flag => flag.unsupported !== undefined)) {
    const { text } = sample(flag);
    const refused = { code: 'unsupported', message: `-${flag.name}: ${flag.unsupported}` };
    t.throws(() => parse(`-${flag.name}=${text}`), refused, flag.name);
    t.throws(() => parseFlags([], { [environmentName(flag)]: text }), { code: 'unsupported' }, environmentName(flag));
    for (const same of [String(flag.default), ...(flag.sameAsDefault ?? [])]) {
      t.doesNotThrow(() => parse(`-${flag.name}=${same}`), `${flag.name}=${same}`);
    }
  }
  t.throws(() => parse('-vmodule=x=2'), {
    message: '-vmodule: a log level for each source file is not supported; use -v=LEVEL',
  });
});

t.test('the last one wins, a repeatable one grows', async t => {
  t.equal(parse('-public-ip=1.1.1.1', '--public-ip', '2.2.2.2').values['public-ip'], '2.2.2.2');
  t.same(parse('-iface=eth0', '--iface', '10.0.0.1', '-iface=').values.iface, ['eth0', '10.0.0.1', '']);
  t.same(parse('-iface=eth0').values.iface, ['eth0'], 'a second parse starts afresh');
});

t.test('values that look like flags, empty values, values with "="', async t => {
  t.equal(parse('-etcd-username', '-x').values['etcd-username'], '-x', 'as in Go, the next word is the value');
  t.equal(parse('-etcd-username=').values['etcd-username'], '');
  t.equal(parse('-etcd-prefix=/a=b').values['etcd-prefix'], '/a=b');
});

t.test('booleans as Go reads them', async t => {
  for (const text of ['1', 't', 'T', 'TRUE', 'true', 'True'])
    t.equal(parse(`-release-on-exit=${text}`).values['release-on-exit'], true);
  for (const text of ['0', 'f', 'F', 'FALSE', 'false', 'False'])
    t.equal(parse(`-release-on-exit=${text}`).values['release-on-exit'], false);
});

t.test('-h and -help', async t => {
  for (const arg of ['-h', '--h', '-help', '--help']) t.equal(parse(arg).values.help, true, arg);
});

t.test('"--" ends the flags', async t => {
  t.equal(parse('-v=1', '--').values.v, 1);
  t.throws(() => parse('--', '-v=1'), { message: /^"-v=1": unexpected argument/ });
});

t.test('bad input is one line that names the flag', async t => {
  const table: [string[], RegExp][] = [
    [['-ifac=eth0'], /^-ifac: there is no such flag; did you mean -iface\?$/],
    [['--etcd-endpoint', 'x'], /did you mean -etcd-endpoints\?$/],
    [['--qqqqqqq'], /^-qqqqqqq: there is no such flag; "tulled --help" lists them all$/],
    [['-healthz-port=http'], /^-healthz-port: "http" is not a whole number from 0 to 65535$/],
    [['-healthz-port=65536'], /from 0 to 65535/],
    [['-healthz-port=010'], /from 0 to 65535/],
    [['-healthz-port='], /from 0 to 65535/],
    [['-subnet-lease-renew-margin=0'], /from 1 to 1439/],
    [['-subnet-lease-renew-margin=1440'], /from 1 to 1439/],
    [['-v=-1'], /from 0 to 10/],
    [['-lease-ttl=24'], /^-lease-ttl: "24" is not a duration, for example --lease-ttl=10m$/],
    [['-lease-ttl=0s'], /is not a duration/],
    [['-release-on-exit=yes'], /^-release-on-exit: "yes" is neither true nor false/],
    [['-release-on-exit', 'true'], /a boolean takes its value with "=", as in -release-on-exit=true$/],
    [['-ip-masq=false', 'false'], /^"false": unexpected argument; flags begin with "-"/],
    [['-transport=fast'], /^-transport: "fast" is not one of offload, batch, dgram$/],
    [['-log-format=xml'], /is not one of text, json/],
    [['-iface'], /^-iface: a value is missing, for example -iface=eth0/],
    [['eth0'], /^"eth0": unexpected argument/],
    [['-'], /unexpected argument/],
    [['---v=1'], /unexpected argument/],
    [['-=1'], /unexpected argument/],
    [[''], /unexpected argument/],
  ];
  for (const [args, message] of table) {
    t.throws(() => parse(...args), { name: 'TulleError', message }, args.join(' '));
    t.throws(() => parse(...args), { message: /^[^\n]*$/ });
  }
  t.throws(() => parseFlags([], { FLANNELD_HEALTHZ_PORT: 'x' }), { message: /^FLANNELD_HEALTHZ_PORT: "x"/ });
});

t.test('a password that went astray is not repeated', async t => {
  const message = (...args: string[]) => {
    try {
      parse(...args);
    } catch (error) {
      return String(error);
    }
    return '';
  };
  t.notMatch(message('-etcd-password=', 'hunter22'), /hunter22/);
  t.match(message('-etcd-password=', 'hunter22'), /-etcd-password: unexpected argument after it/);
});

t.test('variables of ours that name no flag are warned about', async t => {
  const { warnings } = parseFlags([], {
    FLANNELD_IFCE: 'eth0',
    TULLED_NODEID: 'x',
    FLANNELD_ZZZZZZZZZZZZ: '1',
    IFACE: 'x',
  });
  t.same(warnings, [
    'the environment variable FLANNELD_IFCE belongs to no flag; did you mean FLANNELD_IFACE?',
    'the environment variable FLANNELD_ZZZZZZZZZZZZ belongs to no flag',
    'the environment variable TULLED_NODEID belongs to no flag; did you mean TULLED_NODE_ID?',
  ]);
});

t.test('durations', async t => {
  const table: [string, number | undefined][] = [
    ['24h', 86_400_000],
    ['1h30m', 5_400_000],
    ['2.5s', 2500],
    ['500ms', 500],
    ['1m1ms', 60_001],
    ['', undefined],
    ['h', undefined],
    ['-1h', undefined],
    ['1d', undefined],
    ['1h ', undefined],
    ['1', undefined],
  ];
  for (const [text, value] of table) t.equal(parseDuration(text), value, JSON.stringify(text));
});

t.test('nearest', async t => {
  t.equal(nearest('ifaces', ['iface', 'iface-regex']), 'iface');
  t.equal(nearest('x', ['iface']), undefined);
  t.equal(nearest('', ['iface']), undefined);
});
