/** What was measured in a lab, a JSON line each, in ROOT/LAB/notebook.jsonl: the lessons look at it. Bounded. */
import { appendFileSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { LabState } from './state.ts';

export type Note =
  | {
      readonly tool: 'ping';
      readonly from: string;
      readonly to: string;
      readonly bytes: number;
      readonly received: number;
    }
  | {
      readonly tool: 'tcp';
      readonly from: string;
      readonly to: string;
      /** null: the stream hung. */
      readonly gbps: number | null;
      /** Of the sending node's daemon. */
      readonly transport: string;
      /** The overlay's MTU there. */
      readonly mtu: number;
    }
  | {
      readonly tool: 'forge';
      readonly to: string;
      readonly as: string | null;
      readonly drops: Readonly<Record<string, number>>;
    }
  | {
      /** A packet that was sent. */
      readonly tool: 'trace';
      readonly from: string;
      readonly to: string;
      readonly size: number;
      readonly outcome: string;
      /** null: it was delivered, or nobody can tell. */
      readonly reason: string | null;
    };

/** Nobody measures more often than this by hand. */
const MOST_BYTES = 1 << 20;
const notebookFile = (state: LabState): string => join(state.directory, 'notebook.jsonl');

export function writeNote(state: LabState, note: Note): void {
  const path = notebookFile(state);
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > MOST_BYTES) return;
  appendFileSync(path, `${JSON.stringify(note)}\n`, { mode: 0o600 });
}

/** In the order in which they were written; what cannot be read is left out. */
export function readNotes(state: LabState): Note[] {
  let text: string;
  try {
    text = readFileSync(notebookFile(state), 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap(line => {
    try {
      return [JSON.parse(line) as Note];
    } catch {
      return [];
    }
  });
}
