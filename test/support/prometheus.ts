// A strict reader of Prometheus' text format 0.0.4, written from its specification: what it refuses, a server may refuse.
export interface ParsedFamily {
  name: string;
  type: string;
  help: string;
  /** Full series names (with _bucket, _sum, _count), labels, values. */
  samples: { name: string; labels: Record<string, string>; value: number }[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const VALUE = /^([+-]?Inf|NaN|[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?)$/;

/** @throws Error that names the line */
export function parsePrometheus(text: string): Map<string, ParsedFamily> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const families = new Map<string, ParsedFamily>();
  const seen = new Set<string>();
  let current: ParsedFamily | undefined;
  text
    .slice(0, -1)
    .split('\n')
    .forEach((line, index) => {
      const fail = (why: string): never => {
        throw new Error(`line ${index + 1}: ${why}: ${line}`);
      };
      if (line.startsWith('# HELP ')) {
        const [, name, help] = /^# HELP ([^ ]+) (.+)$/.exec(line) ?? fail('no HELP');
        if (families.has(name)) fail('a family twice');
        current = { name, type: 'untyped', help, samples: [] };
        families.set(name, current);
        return;
      }
      if (line.startsWith('# TYPE ')) {
        const [, name, type] = /^# TYPE ([^ ]+) (counter|gauge|histogram)$/.exec(line) ?? fail('no TYPE');
        if (current?.name !== name || current.samples.length > 0) fail('TYPE is not right after its HELP');
        else current.type = type;
        return;
      }
      if (current === undefined || line.startsWith('#')) throw new Error(`line ${index + 1}: no sample: ${line}`);
      const name = NAME.exec(line)?.[0] ?? fail('no name');
      const suffix = current.type === 'histogram' ? /_(bucket|sum|count)$/ : /$/;
      if (name.replace(suffix, '') !== current.name) fail(`a sample of another family than ${current.name}`);
      const { labels, rest } = parseLabels(line.slice(name.length), fail);
      const [value, ...more] = rest.trimStart().split(' ');
      if (!rest.startsWith(' ') || more.length > 0 || !VALUE.test(value)) fail('no value');
      const series = `${name}${JSON.stringify(Object.entries(labels).sort())}`;
      if (seen.has(series)) fail('a series twice');
      seen.add(series);
      current.samples.push({ name, labels, value: Number(value.replace('Inf', 'Infinity')) });
    });
  for (const family of families.values()) checkFamily(family);
  return families;
}

function parseLabels(text: string, fail: (why: string) => never): { labels: Record<string, string>; rest: string } {
  const labels: Record<string, string> = {};
  if (!text.startsWith('{')) return { labels, rest: text };
  let rest = text.slice(1);
  while (!rest.startsWith('}')) {
    const match = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,?)/.exec(rest) ?? fail('a bad label');
    const [all, name, value] = match;
    if (name in labels) fail('a label twice');
    labels[name] = value.replace(/\\(.)/g, (_, char) => (char === 'n' ? '\n' : char));
    rest = rest.slice(all.length);
  }
  return { labels, rest: rest.slice(1) };
}

function checkFamily({ name, type, samples }: ParsedFamily): void {
  if (samples.length === 0) throw new Error(`${name} has no samples`);
  if (type === 'counter') {
    for (const { value } of samples) if (!(value >= 0)) throw new Error(`${name} counts ${value}`);
  }
  if (type !== 'histogram') return;
  const groups = new Map<string, { buckets: [number, number][]; sum?: number; count?: number }>();
  for (const sample of samples) {
    const { le, ...labels } = sample.labels;
    const key = JSON.stringify(labels);
    const group = groups.get(key) ?? { buckets: [] };
    groups.set(key, group);
    if (sample.name.endsWith('_bucket')) group.buckets.push([Number(le.replace('Inf', 'Infinity')), sample.value]);
    else if (sample.name.endsWith('_sum')) group.sum = sample.value;
    else group.count = sample.value;
  }
  for (const [key, { buckets, sum, count }] of groups) {
    const rising = buckets.every(
      ([bound, total], i) => i === 0 || (bound > buckets[i - 1][0] && total >= buckets[i - 1][1]),
    );
    const last = buckets.at(-1);
    if (!rising || last?.[0] !== Number.POSITIVE_INFINITY || last[1] !== count || sum === undefined)
      throw new Error(`${name} ${key} is no histogram`);
  }
}
