// flannel's defect B8 in the text of the rules, by a naive reading of both tools' rules. That a flushed rule is made again
// in either tool, and that a cleanup finds its chains where they are, is in rules.test.ts with the real tools.
import t from 'tap';
import { iptablesMasquerade, nftScript } from '../../lib/host/rules/text.ts';
import { contains4, parseCidr4 } from '../../lib/wire/cidr.ts';
import { parseAddress4 } from '../../lib/wire/ip4.ts';

interface Sample {
  source: string;
  destination: string;
  mark: number;
}
/** The index of the first rule that fits and what it says; -1: none. */
type Verdict = { rule: number; action: string };

const isIn = (cidr: string, address: string): boolean => contains4(parseCidr4(cidr)!, parseAddress4(address)!);

function judge(
  rules: readonly string[],
  sample: Sample,
  fits: (rule: string, sample: Sample) => boolean,
  action: RegExp,
): Verdict {
  const rule = rules.findIndex(text => fits(text, sample));
  return { rule, action: rule < 0 ? 'none' : (action.exec(rules[rule])?.[1] ?? '?').toLowerCase() };
}

function fitsNft(rule: string, { source, destination, mark }: Sample): boolean {
  const masked = /meta mark & (\S+) == (\S+)/.exec(rule);
  if (masked !== null && (mark & Number(masked[1])) >>> 0 !== Number(masked[2])) return false;
  if (/meta mark (0x|==)/.test(rule)) return false; // flannel's exact comparison would be caught below
  for (const [, field, not, cidr] of rule.matchAll(/ip (saddr|daddr) (!= )?(\S+)/g)) {
    if (isIn(cidr, field === 'saddr' ? source : destination) === (not !== undefined)) return false;
  }
  return true;
}

function fitsIptables(rule: string, { source, destination, mark }: Sample): boolean {
  const masked = /--mark (\S+)\/(\S+)/.exec(rule);
  if (masked !== null && (mark & Number(masked[2])) >>> 0 !== Number(masked[1])) return false;
  for (const [, not, field, cidr] of rule.matchAll(/(! )?-([sd]) (\S+)/g)) {
    if (isIn(cidr, field === 's' ? source : destination) === (not !== undefined)) return false;
  }
  return true;
}

t.test(
  'B8: every masquerade rule can be reached, a mark is one bit, and nftables and iptables give one verdict',
  async t => {
    const plan = { family: 4, network: '10.5.0.0/16', subnet: '10.5.1.0/24', randomFully: true } as const;
    const nft = nftScript(plan)
      .split('\n')
      .filter(line => / (return|masquerade)/.test(line));
    const iptables = iptablesMasquerade(plan);
    t.equal(nft.length, 6);
    t.equal(iptables.length, 6);

    const addresses = ['10.5.1.7', '10.5.2.7', '192.0.2.9', '10.88.0.1', '224.0.0.251'];
    const marks = [0, 0x4000, 0x4001, 0xffff, 0xbfff];
    const reached = new Set<number>();
    for (const source of addresses) {
      for (const destination of addresses) {
        for (const mark of marks) {
          const sample = { source, destination, mark };
          const one = judge(nft, sample, fitsNft, / (return|masquerade)/);
          const other = judge(iptables, sample, fitsIptables, /-j (RETURN|MASQUERADE)/);
          if (one.rule !== other.rule || one.action !== other.action)
            t.fail('the tools differ', { sample, one, other });
          if ((mark & 0x4000) !== 0)
            t.equal(one.action, 'return', `marked 0x${mark.toString(16)}: kube-proxy's, whatever else is set`);
          reached.add(one.rule);
        }
      }
    }
    t.same([...reached].sort(), [-1, 0, 1, 2, 3, 4, 5], 'no rule is in the shadow of another');
    // What flannel's nftables leave unmasqueraded: from outside, by way of this node, to a pod of another node.
    const across = { source: '192.0.2.9', destination: '10.5.2.7', mark: 0 };
    t.match(judge(nft, across, fitsNft, / (return|masquerade)/), { rule: 5, action: 'masquerade' });
  },
);
