/** What the page knows and shows, in one place; a change tells the views. */
import { useLayoutEffect, useState } from 'preact/hooks';
import { exampleHistory, exampleNetwork, exampleRecords } from '../microscope/example.ts';
import { type Journey, journeysOf } from '../microscope/journey.ts';
import type { DropEvent, Hello, LeaseHistory, MeasureView, NetworkView, PacketRecord } from '../microscope/model.ts';

export type View = 'packet' | 'network' | 'leases' | 'throughput';

/** One second of the network's rates, for the chart: bytes sent into the underlay by each node. */
export interface RatePoint {
  atMs: number;
  sent: Record<string, number>;
}

export interface State {
  view: View;
  hello: Hello;
  connection: 'none' | 'connecting' | 'live' | 'lost' | 'replaced' | 'refused';
  network: NetworkView | undefined;
  history: LeaseHistory | undefined;
  drops: DropEvent[];
  rates: RatePoint[];
  measure: MeasureView | undefined;
  records: PacketRecord[];
  journeys: Journey[];
  /** The journey that is shown; undefined: the first. */
  chosen: string | undefined;
  /** The last record's number when something was sent from here: what comes after it is the answer. */
  capturing: boolean;
  /** One line for the person, and whether it is bad news. */
  notice: { text: string; bad: boolean } | undefined;
}

const MOST_RECORDS = 4000;
const MOST_DROPS = 200;
const MOST_RATES = 120;

export const EXAMPLE: Hello = {
  kind: 'example',
  title: 'An example',
  mayAct: false,
  actions: [],
  faults: [],
  transports: [],
};

let state: State = {
  view: 'packet',
  hello: EXAMPLE,
  connection: 'none',
  network: undefined,
  history: undefined,
  drops: [],
  rates: [],
  measure: undefined,
  records: [],
  journeys: [],
  chosen: undefined,
  capturing: false,
  notice: undefined,
};
const listeners = new Set<() => void>();

export const current = (): State => state;

export function change(part: Partial<State>): void {
  state = { ...state, ...part };
  for (const listener of listeners) listener();
}

export function useStore(): State {
  const [, again] = useState(0);
  useLayoutEffect(() => {
    const listener = (): void => again(count => count + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return state;
}

export function showExample(): void {
  const records = exampleRecords();
  change({
    hello: EXAMPLE,
    network: exampleNetwork(),
    history: exampleHistory(),
    records,
    journeys: journeysOf(records),
    chosen: undefined,
  });
}

/** Records of a capture file, in place of what was shown. */
export function showFile(name: string, records: PacketRecord[]): void {
  const journeys = journeysOf(records);
  const hello: Hello = { ...EXAMPLE, kind: 'file', title: name };
  change({
    hello,
    connection: 'none',
    network: undefined,
    history: undefined,
    drops: [],
    rates: [],
    records,
    journeys,
    chosen: undefined,
    view: 'packet',
  });
}

/** Live records: the oldest are forgotten. */
export function addRecords(more: readonly PacketRecord[]): void {
  const records = [...state.records, ...more].slice(-MOST_RECORDS);
  change({ records, journeys: journeysOf(records) });
}

export function addDrops(more: readonly DropEvent[]): void {
  change({ drops: [...more, ...state.drops].sort((a, b) => b.atMs - a.atMs).slice(0, MOST_DROPS) });
}

export function setNetwork(network: NetworkView): void {
  const sent = Object.fromEntries(network.nodes.map(node => [node.name, node.rates['eth0']?.sentBytes ?? 0]));
  change({ network, rates: [...state.rates, { atMs: network.atMs, sent }].slice(-MOST_RATES) });
}

const NOTICE_MS = 7000;
let noticeEnds: ReturnType<typeof setTimeout> | undefined;

/** Good news go by themselves, bad news stay. */
export function say(text: string, bad = false): void {
  clearTimeout(noticeEnds);
  if (text !== '' && !bad) noticeEnds = setTimeout(() => change({ notice: undefined }), NOTICE_MS);
  change({ notice: text === '' ? undefined : { text, bad } });
}
