/** Which of flannel's files a text is. */
import { type Fields, isFields } from './finding.ts';

export type Input =
  | { kind: 'objects'; objects: Fields[] }
  | { kind: 'net-conf'; fields: Fields }
  | { kind: 'cni'; fields: Fields }
  | { kind: 'subnet.env' }
  | { kind: 'variables'; variables: Map<string, string>; words: string[] }
  | { kind: 'words'; words: string[] }
  /** YAML, perhaps: whoever has a reader for it may try. */
  | { kind: 'other' };

/** An object, or undefined. */
export function parseJson(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isFields(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export function recognize(text: string): Input {
  const json = parseJson(text);
  if (json !== undefined) return ofFields(json);
  const lines = text.split('\n').map(line => line.trim());
  if (lines.some(line => /^FLANNEL_(IPV6_)?SUBNET=/.test(line))) return { kind: 'subnet.env' };
  if (/^\s*(\S*\/)?flanneld(\s|$)/.test(text) || /^\s*--?[a-z]/.test(text)) {
    const words = shellWords(text.replace(/\\\n/g, ' '));
    return { kind: 'words', words: /(^|\/)flanneld$/.test(words[0]) ? words.slice(1) : words };
  }
  if (
    lines.some(line => /^(Environment=|ExecStart=|export )?"?[A-Z][A-Z_]*=/.test(line) || line.startsWith('ExecStart='))
  ) {
    return ofUnit(text);
  }
  return { kind: 'other' };
}

export function ofFields(fields: Fields): Input {
  const has = (name: string): boolean => Object.keys(fields).some(key => key.toLowerCase() === name);
  if (typeof fields['kind'] === 'string' && typeof fields['apiVersion'] === 'string')
    return { kind: 'objects', objects: [fields] };
  if (has('network') || has('ipv6network') || has('backend')) return { kind: 'net-conf', fields };
  if (has('plugins') || has('type')) return { kind: 'cni', fields };
  return { kind: 'other' };
}

/** A unit of systemd, or a file of variables. */
function ofUnit(text: string): Input {
  const variables = new Map<string, string>();
  let words: string[] = [];
  for (const line of text.replace(/\\\n/g, ' ').split('\n')) {
    const [, start] = /^\s*ExecStart=[-@:+!]*(.*)$/.exec(line) ?? [];
    if (start !== undefined) {
      const all = shellWords(start);
      const at = all.findIndex(word => /(^|\/)flanneld$/.test(word));
      if (at >= 0) words = all.slice(at + 1);
      continue;
    }
    const [, quoted] = /^\s*Environment=(.*)$/.exec(line) ?? [];
    const pairs = quoted === undefined ? [line.trim().replace(/^export /, '')] : shellWords(quoted);
    for (const pair of pairs) {
      const match = /^([A-Z][A-Z0-9_]*)=(.*)$/s.exec(pair);
      if (match !== null) variables.set(match[1], shellWords(match[2]).join(' '));
    }
  }
  return { kind: 'variables', variables, words };
}

/** Words with quotes and backslashes, as a shell and systemd have them; nothing is expanded. */
export function shellWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (quote !== '') {
      if (character === quote) quote = '';
      else word += character === '\\' && quote === '"' && /["\\]/.test(text[i + 1] ?? '') ? text[++i] : character;
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (character === '"' || character === "'") {
      quote = character;
      word ??= '';
    } else word = (word ?? '') + (character === '\\' && i + 1 < text.length ? text[++i] : character);
  }
  if (word !== undefined) words.push(word);
  return words;
}
