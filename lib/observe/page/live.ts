/** The server's side of the page: what it streams, and what may be asked of it. Without a server there is the example. */
import type {
  ActionName,
  DropEvent,
  Hello,
  LeaseHistory,
  MeasureView,
  NetworkView,
  PacketRecord,
  SentRecord,
} from '../microscope/model.ts';
import { addDrops, addRecords, change, current, say, setNetwork, showExample } from './store.ts';

let events: EventSource | undefined;

export async function connect(): Promise<void> {
  if (location.protocol === 'file:') return showExample();
  try {
    const hello = await greet();
    change({ connection: 'connecting', view: hello.kind === 'lab' ? 'network' : current().view });
    listen();
  } catch {
    showExample();
    say('No live data here: this is an example. Drop a pcapng file to look at your own.');
  }
}

async function greet(): Promise<Hello> {
  const response = await fetch('/api/hello');
  if (!response.ok) throw new Error(await response.text());
  const hello = (await response.json()) as Hello;
  document.title = `${hello.title} · tulle microscope`;
  change({ hello });
  return hello;
}

export function disconnect(): void {
  events?.close();
  events = undefined;
}

function listen(): void {
  disconnect();
  events = new EventSource('/api/events');
  const on = <T>(name: string, take: (data: T) => void): void =>
    events?.addEventListener(name, event => take(JSON.parse((event as MessageEvent<string>).data) as T));
  let opened = 0;
  const source = events;
  source.onopen = () => {
    change({ connection: 'live' });
    // A server that was started again has another token: then its buttons are no longer ours.
    if (opened++ > 0) void greet().catch(() => {});
  };
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return change({ connection: 'lost' });
    change({ connection: 'refused' });
    say('The server does not take this page any more: open the address that it printed at its last start.', true);
  };
  on<NetworkView>('network', setNetwork);
  on<LeaseHistory>('history', history => change({ history }));
  on<DropEvent[]>('drops', addDrops);
  on<MeasureView>('measure', measure => change({ measure }));
  on<{ on: boolean }>('capture', ({ on }) => change({ capturing: on }));
  on<SentRecord[]>('packets', records => addRecords(records.map(receive)));
  on<{ why: string }>('bye', ({ why }) => {
    disconnect();
    change({ connection: 'replaced' });
    say(why, true);
  });
}

export const reconnect = (): void => listen();

function receive({ base64, ...rest }: SentRecord): PacketRecord {
  return { ...rest, bytes: Uint8Array.from(atob(base64), character => character.charCodeAt(0)) };
}

/** Asks the server to do something; undefined, and a notice, when it does not. */
export async function act(action: ActionName, body: object): Promise<{ note?: string } | undefined> {
  try {
    const response = await fetch(`/api/act/${action}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const answer = (await response.json()) as { note?: string; error?: string };
    if (!response.ok) {
      say(answer.error ?? `the server said ${response.status}`, true);
      return undefined;
    }
    if (answer.note !== undefined) say(answer.note);
    return answer;
  } catch {
    say('The server does not answer: is the lab still up?', true);
    return undefined;
  }
}
