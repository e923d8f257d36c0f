/**
 * Expressions that choose packets, a small part of what tcpdump understands:
 *
 *   expression  = term { ("or" | "||") term }
 *   term        = factor { ("and" | "&&") factor }
 *   factor      = ("not" | "!") factor | "(" expression ")" | primitive
 *   primitive   = [side] "host" ADDRESS | [side] "net" CIDR | side ADDRESS | side CIDR
 *               | [protocol] [side] "port" NUMBER | [protocol] [side] "portrange" NUMBER "-" NUMBER
 *               | protocol | "ip" | "ip6" | "proto" (protocol | NUMBER)
 *   side        = "src" | "dst"                without one: either of them
 *   protocol    = "tcp" | "udp" | "icmp" | "icmp6"
 *
 * "not" binds tighter than "and", "and" tighter than "or". A mistake is answered with its column. filter-match.ts makes a
 * predicate of what this returns.
 */

import { address6ToBigint, parseAddress6 } from './address6.ts';
import { maskOf, maskOf6, parseCidr4, parseCidr6, type Subnet4, type Subnet6 } from './cidr.ts';
import { PROTOCOL_ICMP, PROTOCOL_ICMP6, PROTOCOL_TCP, PROTOCOL_UDP, parseAddress4 } from './ip4.ts';

export type Side = 'src' | 'dst' | 'either';

export type Filter =
  | { kind: 'and'; left: Filter; right: Filter }
  | { kind: 'or'; left: Filter; right: Filter }
  | { kind: 'not'; of: Filter }
  | { kind: 'net4'; side: Side; net: Subnet4 }
  | { kind: 'net6'; side: Side; net: Subnet6 }
  /** Port `from` to `to`, of TCP or UDP, or of one of them. */
  | { kind: 'port'; side: Side; from: number; to: number; protocol: number | undefined }
  | { kind: 'protocol'; protocol: number }
  | { kind: 'version'; version: 4 | 6 };

/** What is wrong, and where: `column` counts from 1. */
export interface FilterError {
  column: number;
  message: string;
}

export type Parsed = { filter: Filter } | { error: FilterError };

const PROTOCOLS: Readonly<Record<string, number>> = {
  tcp: PROTOCOL_TCP,
  udp: PROTOCOL_UDP,
  icmp: PROTOCOL_ICMP,
  icmp6: PROTOCOL_ICMP6,
};

/** A person types less; a program's mistake must not exhaust the stack. */
export const LONGEST_FILTER = 1_000;
const DEEPEST = 100;

interface Token {
  text: string;
  column: number;
}

/** Parses an expression. Of an empty one the error says so. */
export function parseFilter(text: string): Parsed {
  if (text.length > LONGEST_FILTER)
    return { error: { column: LONGEST_FILTER + 1, message: `longer than ${LONGEST_FILTER} characters` } };
  try {
    const parser = new Parser(text);
    return { filter: parser.all() };
  } catch (error) {
    if (error instanceof Mistake) return { error: { column: error.column, message: error.message } };
    throw error;
  }
}

/** Two lines for a person: the expression, and an arrow under the column. */
export function pointAt(text: string, { column, message }: FilterError): string {
  return `${text}\n${' '.repeat(column - 1)}^ ${message}`;
}

class Mistake extends Error {
  readonly column: number;
  constructor(column: number, message: string) {
    super(message);
    this.column = column;
  }
}

/** Words, operators and parentheses; anything between blanks that is no operator is a word. */
function tokensOf(text: string): Token[] {
  return [...text.matchAll(/&&|\|\||[!()]|[^\s!()&|]+|[&|]/g)].map(match => ({
    text: match[0],
    column: match.index + 1,
  }));
}

class Parser {
  readonly #tokens: Token[];
  readonly #end: number;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#tokens = tokensOf(text);
    this.#end = text.trimEnd().length + 1;
  }

  all(): Filter {
    if (this.#tokens.length === 0) throw new Mistake(1, 'an empty expression');
    const filter = this.#expression();
    const rest = this.#tokens[this.#at];
    if (rest?.text === ')') throw new Mistake(rest.column, 'a ")" without its "("');
    if (rest !== undefined) throw new Mistake(rest.column, `"and" or "or" must stand before "${rest.text}"`);
    return filter;
  }

  #expression(): Filter {
    let left = this.#term();
    while (this.#takes('or', '||')) left = { kind: 'or', left, right: this.#term() };
    return left;
  }

  #term(): Filter {
    let left = this.#factor();
    while (this.#takes('and', '&&')) left = { kind: 'and', left, right: this.#factor() };
    return left;
  }

  #factor(): Filter {
    const token = this.#tokens[this.#at];
    if (++this.#depth > DEEPEST) throw new Mistake(token?.column ?? this.#end, 'too deep');
    try {
      if (this.#takes('not', '!')) return { kind: 'not', of: this.#factor() };
      if (!this.#takes('(')) return this.#primitive();
      const inside = this.#expression();
      if (!this.#takes(')'))
        throw new Mistake(this.#column(), `")" is missing: it closes the "(" of column ${token.column}`);
      return inside;
    } finally {
      this.#depth--;
    }
  }

  #primitive(): Filter {
    const { text, column } = this.#next('an expression: host, net, port, tcp, udp, icmp, icmp6, ip, ip6');
    if (Object.hasOwn(PROTOCOLS, text)) return this.#ofProtocol(PROTOCOLS[text], text);
    switch (text) {
      case 'ip':
        return { kind: 'version', version: 4 };
      case 'ip6':
        return { kind: 'version', version: 6 };
      case 'proto':
        return this.#protocolNumber();
      case 'src':
      case 'dst':
        return this.#ofSide(text);
      case 'host':
        return this.#host('either');
      case 'net':
        return this.#net('either');
      case 'port':
        return this.#port('either', undefined);
      case 'portrange':
        return this.#portRange('either', undefined);
      default:
        throw new Mistake(column, unknown(text));
    }
  }

  /** Behind "tcp" and its like: ports of it may follow. */
  #ofProtocol(protocol: number, name: string): Filter {
    const hasPorts = protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP;
    const word = this.#tokens[this.#at];
    const isSide = word?.text === 'src' || word?.text === 'dst';
    const what = this.#tokens[this.#at + (isSide ? 1 : 0)]?.text;
    if (what !== 'port' && what !== 'portrange') return { kind: 'protocol', protocol };
    if (!hasPorts) throw new Mistake(word.column, `${name} has no ports`);
    this.#at += isSide ? 2 : 1;
    const side = isSide ? (word.text as Side) : 'either';
    return what === 'port' ? this.#port(side, protocol) : this.#portRange(side, protocol);
  }

  /** Behind "src" or "dst". */
  #ofSide(side: Side): Filter {
    if (this.#takes('host')) return this.#host(side);
    if (this.#takes('net')) return this.#net(side);
    if (this.#takes('port')) return this.#port(side, undefined);
    if (this.#takes('portrange')) return this.#portRange(side, undefined);
    const { text } = this.#peek(`host, net, port or an address behind "${side}"`);
    return text.includes('/') ? this.#net(side) : this.#host(side);
  }

  #host(side: Side): Filter {
    const { text, column } = this.#next('an address');
    const four = parseAddress4(text);
    if (four !== undefined) return { kind: 'net4', side, net: { address: four, prefixLength: 32 } };
    const six = parseAddress6(text);
    if (six !== undefined) return { kind: 'net6', side, net: { address: address6ToBigint(six), prefixLength: 128 } };
    throw new Mistake(column, `"${text}" is no address${text.includes('/') ? ': a net is "net 10.42.0.0/16"' : ''}`);
  }

  #net(side: Side): Filter {
    const { text, column } = this.#next('a net, as 10.42.0.0/16');
    const four = parseCidr4(text);
    if (four !== undefined) {
      const address = (four.address & maskOf(four.prefixLength)) >>> 0;
      if (address !== four.address) throw new Mistake(column, `"${text}" has bits behind its prefix`);
      return { kind: 'net4', side, net: four };
    }
    const six = parseCidr6(text);
    if (six === undefined) throw new Mistake(column, `"${text}" is no net: write it as 10.42.0.0/16 or fd00:42::/48`);
    if ((six.address & maskOf6(six.prefixLength)) !== six.address)
      throw new Mistake(column, `"${text}" has bits behind its prefix`);
    return { kind: 'net6', side, net: six };
  }

  #port(side: Side, protocol: number | undefined): Filter {
    const { text, column } = this.#next('a port');
    const port = portOf(text, column);
    return { kind: 'port', side, from: port, to: port, protocol };
  }

  #portRange(side: Side, protocol: number | undefined): Filter {
    const { text, column } = this.#next('a range of ports, as 8000-8999');
    const match = /^(\d+)-(\d+)$/.exec(text);
    if (match === null) throw new Mistake(column, `"${text}" is no range of ports: write it as 8000-8999`);
    const from = portOf(match[1], column);
    const to = portOf(match[2], column + match[1].length + 1);
    if (from > to) throw new Mistake(column, `"${text}" ends before it begins`);
    return { kind: 'port', side, from, to, protocol };
  }

  #protocolNumber(): Filter {
    const { text, column } = this.#next('a protocol: tcp, udp, icmp, icmp6 or its number');
    if (Object.hasOwn(PROTOCOLS, text)) return { kind: 'protocol', protocol: PROTOCOLS[text] };
    const protocol = /^\d{1,3}$/.test(text) ? Number(text) : 256;
    if (protocol > 255) throw new Mistake(column, `"${text}" is no protocol: tcp, udp, icmp, icmp6 or 0 to 255`);
    return { kind: 'protocol', protocol };
  }

  #takes(...words: string[]): boolean {
    if (!words.includes(this.#tokens[this.#at]?.text)) return false;
    this.#at++;
    return true;
  }

  #peek(wanted: string): Token {
    const token = this.#tokens[this.#at];
    if (token === undefined) throw new Mistake(this.#end, `here must stand ${wanted}`);
    return token;
  }

  #next(wanted: string): Token {
    const token = this.#peek(wanted);
    if (/^[()!]$|^&&?$|^\|\|?$|^(and|or)$/.test(token.text))
      throw new Mistake(token.column, `here must stand ${wanted}`);
    this.#at++;
    return token;
  }

  #column(): number {
    return this.#tokens[this.#at]?.column ?? this.#end;
  }
}

function portOf(text: string, column: number): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 65_536;
  if (port > 65_535) throw new Mistake(column, `"${text}" is no port: 0 to 65535`);
  return port;
}

function unknown(text: string): string {
  if (text.includes('/') && (parseCidr4(text) ?? parseCidr6(text)) !== undefined) return `write "net ${text}"`;
  if (parseAddress4(text) !== undefined || parseAddress6(text) !== undefined) return `write "host ${text}"`;
  if (/^\d+$/.test(text)) return `write "port ${text}"`;
  const lower = text.toLowerCase();
  if (lower !== text) return `"${text}" is not known: words are written small`;
  return `"${text}" is not known: host, net, port, portrange, src, dst, tcp, udp, icmp, icmp6, ip, ip6, proto, and, or, not`;
}
