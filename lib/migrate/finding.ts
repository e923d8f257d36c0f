/** What is found out about one setting of flannel's. */

/** carries: it means the same here. differs: good to know, nothing to do. change: something must be done. */
export type Verdict = 'carries' | 'differs' | 'change';

export interface Finding {
  /** The file, and what in it: "kube-flannel.yml, ConfigMap kube-flannel-cfg". */
  source: string;
  /** The setting, as one says it: "-iface", "Backend.Type". */
  item: string;
  verdict: Verdict;
  /** One line. */
  text: string;
}

/** Notes findings about one source. */
export class Findings {
  readonly list: Finding[] = [];

  at(source: string): (verdict: Verdict, item: string, text: string) => void {
    return (verdict, item, text) => {
      this.list.push({ source: plain(source), item: plain(item), verdict, text: plain(text) });
    };
  }
}

const LONGEST = 300;

/** What others wrote, on one line of a terminal: no control characters, nothing endless. */
export function plain(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, ' ').trim();
  return line.length <= LONGEST ? line : `${line.slice(0, LONGEST - 1)}…`;
}

export type Fields = Readonly<Record<string, unknown>>;

/** What to write instead, as far as it can be said. */
export interface Proposal {
  netConf?: Fields | undefined;
  cni?: Fields | undefined;
  /** tulled's command line and variables. */
  arguments?: string[];
  variables?: string[];
}

export const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The value's own fields, none of anything else. */
export const fieldsOf = (value: unknown): Fields => (isFields(value) ? value : {});

export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');
