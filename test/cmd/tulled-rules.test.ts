// The traffic rules of a real tulled, in a namespace of its own.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { withNamespace } from '../../lib/sys/sys.ts';
import { makeNode, skip as noNode } from '../daemon/node.ts';
import { openRuleTools } from '../host/rule-tools.ts';

const tools = noNode === false ? openRuleTools() : noNode;
const skip = typeof tools === 'string' ? tools : false;
t.teardown(() => {
  if (typeof tools !== 'string') tools.remove();
});

t.test(
  '-ip-masq: rules at ready, kept at a stop, replaced at the next start, removed when asked',
  { skip },
  async t => {
    if (typeof tools === 'string') return;
    const world = makeNode(t);
    const ruleset = (): string =>
      withNamespace(world.node, () => execFileSync(tools.nft, ['list', 'ruleset'], { encoding: 'utf8' }));
    const path = { PATH: tools.path('both').join(':') };
    const first = world.startWith(path, '-ip-masq');
    await first.saw(/ ready /);
    t.match(ruleset(), /table ip tulle-10\.5\.0\.0-16/);
    t.match(ruleset(), /chain TULLE-FWD-10\.5\.0\.0-16/);
    t.match(readFileSync(world.subnetFile, 'utf8'), /^FLANNEL_IPMASQ=true$/m);
    t.equal((await first.end('SIGTERM')).code, 0);
    t.match(ruleset(), /masquerade fully-random/, 'they stay');
    t.notMatch(first.stderr(), / warn | error /);

    const second = world.startWith(path, '--remove-rules-on-exit');
    await second.saw(/ ready /);
    t.notMatch(ruleset(), /tulle-10/, 'without -ip-masq the masquerade goes');
    t.match(ruleset(), /TULLE-FWD/);
    t.equal((await second.end('SIGTERM')).code, 0);
    t.notMatch(ruleset(), /tulle/i);
  },
);
