import t from 'tap';
import { barChart, percentileChart } from '../../bench/charts.ts';
import { plotsOf } from '../../bench/plots.ts';
import { element, logTicks, text, ticks } from '../../bench/svg.ts';
import { sampleRun } from './sample.ts';

/** Complains about what an XML parser would refuse: tags that do not match, bare & or <, attributes without quotes. */
function complaintOf(xml: string): string | undefined {
  const open: string[] = [];
  let rest = xml;
  while (rest !== '') {
    const words = /^[^<&]+|^&(?:amp|lt|gt|quot);/.exec(rest);
    const tag = /^<(\/?)([a-z]+)((?: [a-zA-Z\d-]+="[^"<]*")*)(\/?)>/.exec(rest);
    const found = words ?? tag;
    if (found === null) return `cannot read ${rest.slice(0, 60)}`;
    if (tag !== null) {
      const [, close, name, attributes, empty] = tag;
      if (/&(?!amp;|lt;|gt;|quot;)/.test(attributes)) return `a bare & in ${tag[0]}`;
      if (close === '/' && open.pop() !== name) return `${tag[0]} closes nothing`;
      if (close === '' && empty === '') open.push(name);
    }
    rest = rest.slice(found[0].length);
  }
  return open.length === 0 ? undefined : `${open.join()} stay open`;
}

t.test('the checker of this test can fail', async t => {
  t.match(complaintOf('<a><b></a>'), /closes nothing/);
  t.match(complaintOf('<a>1 & 2</a>'), /cannot read/);
  t.match(complaintOf('<a b=1/>'), /cannot read/);
  t.match(complaintOf('<a b="&"/>'), /bare/);
  t.match(complaintOf('<a>'), /stay open/);
});

t.test('every plot of a run is well-formed and full of numbers', async t => {
  const plots = plotsOf(sampleRun());
  t.same([...plots.keys()], ['tcp-veth.svg', 'udp-veth.svg', 'cpu-veth.svg', 'rtt-veth.svg', 'ladder.svg']);
  for (const [name, svg] of plots) {
    t.equal(complaintOf(svg), undefined, name);
    t.notMatch(svg, /NaN|undefined|Infinity|null/, name);
    t.match(svg, /commit 0123456789ab · 2026-11-21/, `${name} names its source`);
    t.match(svg, /Test &lt;CPU&gt;/, `${name} escapes what it is given`);
  }
  t.notMatch(plots.get('tcp-veth.svg'), /tulle-batch/, 'rungs are in the ladder only');
});

t.test('bars are as long as their values, whiskers as their spread', async t => {
  const head = { title: 'T', subtitle: 'S', unit: 'U', source: 'X' };
  const series = [{ name: 'one', color: '#123456' }];
  const groups = [
    { label: 'a', bars: [{ value: 5, low: 4, high: 8 }] },
    { label: 'b', bars: [{ value: 10, low: 10, high: 10 }] },
    { label: 'c', bars: [null] },
  ];
  const svg = barChart(head, series, groups, 1);
  const widths = [...svg.matchAll(/<rect [^>]*width="([\d.]+)"[^>]*fill="#123456"/g)].map(match => Number(match[1]));
  t.equal(widths.length, 2);
  t.ok(Math.abs(widths[1] / widths[0] - 2) < 0.01, `${widths}`);
  t.equal([...svg.matchAll(/stroke-width="1.2"/g)].length, 3, 'one whisker of three lines');
  t.match(svg, />5\.0</);
  t.match(svg, />not measured</);
  t.equal(complaintOf(barChart(head, series, [], 1)), undefined, 'no groups');
});

t.test('percentiles', async t => {
  const head = { title: 'T', subtitle: 'S', unit: 'ms', source: 'X' };
  const series = ['idle', 'load'].map(name => ({ name, color: '#abcdef' }));
  const svg = percentileChart(head, series, [
    { label: 'a', ranges: [{ p50: 0.1, p90: 1, p99: 10 }, null] },
    { label: 'zero', ranges: [{ p50: 0, p90: 0, p99: 0 }, null] },
  ]);
  t.equal(complaintOf(svg), undefined);
  const [start, thin, thick] = [
    ...svg.matchAll(/<line x1="([\d.]+)"[^>]* x2="([\d.]+)"[^>]*stroke="#abcdef"/g),
  ].flatMap(([, a, b], i) => (i === 0 ? [Number(a), Number(b)] : i === 1 ? [Number(b)] : []));
  t.ok(Math.abs((thin - start) / (thick - start) - 2) < 0.01, 'two powers of ten are twice as long as one');
  t.equal(complaintOf(percentileChart(head, series, [])), undefined);
});

t.test('axes', async t => {
  t.same(ticks(34.8), [0, 10, 20, 30, 40]);
  t.same(ticks(0.9), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  t.same(ticks(0), [0, 1]);
  t.same(logTicks(0.03, 0.4), [0.02, 0.05, 0.1, 0.2, 0.5]);
  t.same(logTicks(1, 1), [1]);
  t.throws(() => element('rect', { x: Number.NaN }), { message: 'rect: x is NaN' });
  t.equal(complaintOf(text(1, 2, 'a < b & "c"')), undefined);
});
