/** A packet to look at: from which pod to which, of what kind and size. */
import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { act } from './live.ts';
import { change, current, type State } from './store.ts';

/** As lib/lab/page-send.ts calls it. */
const NOBODY = 'nobody';
const USUAL: Readonly<Record<string, number>> = { icmp: 56, udp: 64, tcp: 20_000 };
const MOST: Readonly<Record<string, number>> = { icmp: 4000, udp: 4000, tcp: 60_000 };

export function SendForm({ state }: { state: State }): JSX.Element {
  const pods = state.network?.pods ?? [];
  const [from, setFrom] = useState('');
  const [to, setTo] = useState('');
  const [kind, setKind] = useState('icmp');
  const [sizes, setSizes] = useState<Record<string, number>>(USUAL);
  const size = sizes[kind];
  const [busy, setBusy] = useState(false);
  const source = from === '' ? pods[0]?.name : from;
  const other = pods.find(pod => pod.node !== pods.find(({ name }) => name === source)?.node)?.name;
  const target = to === '' || to === source || (to === NOBODY && kind === 'tcp') ? other : to;
  const send = async (): Promise<void> => {
    setBusy(true);
    const before = new Set(current().journeys.map(journey => journey.id));
    await act('send', { from: source, to: target, kind, size });
    setBusy(false);
    // What the capture brought lies behind what was there.
    const podOf = (name: string | undefined): string | undefined => pods.find(pod => pod.name === name)?.address;
    for (let tries = 0; tries < 20; tries++) {
      const found = current().journeys.find(journey => !before.has(journey.id) && journey.source === podOf(source));
      if (found !== undefined) return change({ chosen: found.id });
      await new Promise(resolve => setTimeout(resolve, 100));
    }
  };
  const choice = (label: string, value: string | undefined, set: (value: string) => void, to: boolean): JSX.Element => (
    <label>
      {label}
      <select value={value ?? ''} onChange={event => set(event.currentTarget.value)}>
        {pods
          .filter(pod => !to || pod.name !== source)
          .map(pod => (
            <option value={pod.name} key={pod.name}>
              {pod.name} · {pod.address}
            </option>
          ))}
        {to && kind !== 'tcp' && <option value={NOBODY}>an address nobody leases</option>}
      </select>
    </label>
  );
  return (
    <form
      class="send"
      onSubmit={event => {
        event.preventDefault();
        void send();
      }}
    >
      <h2>Send and watch</h2>
      {choice('from', source, setFrom, false)}
      {choice('to', target, setTo, true)}
      <div class="pair">
        <label>
          kind
          <select value={kind} onChange={event => setKind(event.currentTarget.value)}>
            <option value="icmp">ping</option>
            <option value="udp">UDP</option>
            <option value="tcp">TCP</option>
          </select>
        </label>
        <label>
          bytes
          <input
            type="number"
            min={kind === 'icmp' ? 8 : 1}
            max={MOST[kind]}
            value={size}
            onInput={event => setSizes({ ...sizes, [kind]: Number(event.currentTarget.value) })}
          />
        </label>
      </div>
      <button type="submit" class="primary" disabled={busy || target === undefined}>
        {busy ? 'Sending…' : 'Send'}
      </button>
    </form>
  );
}
