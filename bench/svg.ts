/** SVG as text: elements with escaped attributes, and numbers that are numbers. */

export type Attributes = Readonly<Record<string, string | number>>;

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, c => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);

/** An element; `content` is markup already. A number that is none is a mistake of the caller. */
export function element(name: string, attributes: Attributes, content = ''): string {
  const words = Object.entries(attributes).map(([key, value]) => {
    if (typeof value === 'number' && !Number.isFinite(value)) throw new RangeError(`${name}: ${key} is ${value}`);
    return ` ${key}="${escaped(typeof value === 'number' ? String(Math.round(value * 100) / 100) : value)}"`;
  });
  return content === '' ? `<${name}${words.join('')}/>` : `<${name}${words.join('')}>${content}</${name}>`;
}

export type Anchor = 'start' | 'middle' | 'end';

export function text(
  x: number,
  y: number,
  words: string,
  options: { size?: number; anchor?: Anchor; fill?: string; weight?: string } = {},
): string {
  const { size = 13, anchor = 'start', fill = INK, weight = 'normal' } = options;
  return element(
    'text',
    { x, y, 'font-size': size, 'text-anchor': anchor, fill, 'font-weight': weight },
    escaped(words),
  );
}

export const line = (x1: number, y1: number, x2: number, y2: number, stroke: string, width = 1): string =>
  element('line', { x1, y1, x2, y2, stroke, 'stroke-width': width });

export const rect = (x: number, y: number, width: number, height: number, fill: string): string =>
  element('rect', { x, y, width, height, fill });

export const INK = '#1f2933';
export const FAINT = '#616e7c';
export const GRID = '#e0e4e8';

/** A whole picture on a white ground. */
export function picture(width: number, height: number, title: string, parts: readonly string[]): string {
  const head = {
    xmlns: 'http://www.w3.org/2000/svg',
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    'font-family': 'DejaVu Sans, Verdana, Helvetica, Arial, sans-serif',
    role: 'img',
  };
  const body = [element('title', {}, escaped(title)), rect(0, 0, width, height, '#ffffff'), ...parts];
  return `${element('svg', head, `\n${body.join('\n')}\n`)}\n`;
}

/** Round numbers from 0 to at least `most`, about five of them. */
export function ticks(most: number): number[] {
  if (!(most > 0)) return [0, 1];
  const rough = most / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(candidate => candidate >= rough)!;
  const count = Math.ceil(most / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}

/** 0.01, 0.02, 0.05, 0.1 …: the marks of a logarithmic axis around these values (all above zero). */
export function logTicks(least: number, most: number): number[] {
  const marks: number[] = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power++) {
    for (const factor of [1, 2, 5]) marks.push(Number((factor * 10 ** power).toPrecision(3)));
  }
  const from = marks.findLastIndex(mark => mark <= least);
  const to = marks.findIndex(mark => mark >= most);
  return marks.slice(Math.max(0, from), (to < 0 ? marks.length - 1 : to) + 1);
}
