/** The leases at any moment of the registry's history: a slider over its changes, a map of the subnets, a table. */
import type { JSX } from 'preact';
import { useEffect, useMemo, useState } from 'preact/hooks';
import { type Change, type Holding, keyOfHolding, printHolder, printKey, replay } from '../../lease/history.ts';
import { parseCidr4, subnetIndex } from '../../wire/cidr.ts';
import { clock, plural } from './format.ts';
import type { State } from './store.ts';

const PLAY_MS = 900;
/** A map of more subnets than this has cells that nobody can see. */
const MOST_CELLS = 1024;

export function LeasesView({ state }: { state: State }): JSX.Element {
  const { history, network } = state;
  const moments = history?.changes.length ?? 0;
  /** undefined: now, and following. */
  const [chosen, setChosen] = useState<number | undefined>(undefined);
  const [playing, setPlaying] = useState(false);
  const at = Math.min(chosen ?? moments, moments);
  useEffect(() => {
    if (!playing) return;
    const timer = setTimeout(() => {
      if (at >= moments) setPlaying(false);
      else setChosen(at + 1 === moments ? undefined : at + 1);
    }, PLAY_MS);
    return () => clearTimeout(timer);
  }, [playing, at, moments]);
  const holdings = useMemo(() => {
    if (history === undefined) return [];
    const state = new Map(history.base.map(holding => [keyOfHolding(holding), holding]));
    return [...replay(state, history.changes.slice(0, at)).values()].sort((a, b) => addressOf(a) - addressOf(b));
  }, [history, at]);
  if (history === undefined) {
    return (
      <section class="empty">
        <h2>No leases here</h2>
        <p>
          A capture file holds packets only. A lab, or a daemon’s page, shows who holds which subnet, and who held it
          before.
        </p>
      </section>
    );
  }
  const change = at > 0 ? history.changes[at - 1] : undefined;
  const go = (to: number): void => setChosen(to >= moments ? undefined : Math.max(0, to));
  return (
    <div class="leases-view">
      <section class="slider" aria-label="History">
        <div class="moment" aria-live="polite">
          <h2>
            {change === undefined
              ? at === moments
                ? 'Now'
                : 'The beginning'
              : at === moments
                ? 'Now, after the last change'
                : momentOf(change)}
          </h2>
          <p>
            {change === undefined
              ? `Revision ${history.since}: ${plural(holdings.length, 'lease')}.`
              : sentenceOf(change)}
          </p>
        </div>
        <div class="slider-row">
          <button type="button" onClick={() => go(at - 1)} disabled={at === 0} aria-label="The change before">
            ←
          </button>
          <button
            type="button"
            class="primary"
            aria-label={playing ? 'Stop' : 'Play the history'}
            onClick={() => {
              if (!playing && at >= moments) setChosen(0);
              setPlaying(!playing);
            }}
            disabled={moments === 0}
          >
            {playing ? '❚❚' : '▶'}
          </button>
          <button type="button" onClick={() => go(at + 1)} disabled={at >= moments} aria-label="The next change">
            →
          </button>
          <div class="range">
            <input
              type="range"
              min={0}
              max={moments}
              step={1}
              value={at}
              aria-label="Moment in the registry’s history"
              aria-valuetext={change === undefined ? 'the beginning' : `${momentOf(change)}: ${sentenceOf(change)}`}
              onInput={event => go(Number(event.currentTarget.value))}
            />
            <div class="ticks" aria-hidden="true">
              {history.changes.slice(0, 200).map((each, i) => (
                <span
                  key={`${each.revision} ${each.kind} ${each.key}`}
                  class={each.kind}
                  style={{ left: `${((i + 1) / Math.max(1, moments)) * 100}%` }}
                />
              ))}
            </div>
          </div>
          <button type="button" onClick={() => go(moments)} disabled={at >= moments}>
            Now
          </button>
        </div>
      </section>
      <section class="card" aria-label="Leases">
        <h2>
          Leases <span class="soft">{holdings.length}</span>
        </h2>
        <table>
          <thead>
            <tr>
              <th>subnet</th>
              <th>node</th>
              <th>endpoint</th>
              <th>backend</th>
              <th>lease key</th>
              <th>revision</th>
            </tr>
          </thead>
          <tbody>
            {holdings.map((holding, i) => (
              <tr
                key={keyOfHolding(holding)}
                class={change?.kind === 'put' && change.key === keyOfHolding(holding) ? 'fresh' : ''}
              >
                <td>
                  <span class={`swatch line-${colourOf(holding, holdings, i)}`} aria-hidden="true" />{' '}
                  <code>{printKey(keyOfHolding(holding))}</code>
                </td>
                <td>{holding.nodeId ?? '–'}</td>
                <td>
                  <code>{holding.publicIp}</code>
                </td>
                <td>
                  {holding.backend}
                  {holding.reservation && ', reserved'}
                </td>
                <td>{holding.createRevision >>> 0}</td>
                <td>{holding.modRevision}</td>
              </tr>
            ))}
            {change?.kind === 'removed' && (
              <tr class="gone">
                <td>
                  <code>{printKey(change.key)}</code>
                </td>
                <td>{change.holding?.nodeId ?? '–'}</td>
                <td colSpan={4}>ended here</td>
              </tr>
            )}
          </tbody>
        </table>
      </section>
      <SubnetMap network={network?.network} holdings={holdings} change={change} />
    </div>
  );
}

const addressOf = ({ subnet }: Holding): number => parseCidr4(subnet)?.address ?? 0;
/** One colour a node, by its name's place in the alphabet of those that are shown. */
function colourOf(holding: Holding, holdings: readonly Holding[], fallback: number): number {
  const names = [...new Set(holdings.map(({ nodeId, publicIp }) => nodeId ?? publicIp))].sort();
  const index = names.indexOf(holding.nodeId ?? holding.publicIp);
  return ((index < 0 ? fallback : index) % 6) + 1;
}

function momentOf({ revision, atMs, late }: Change): string {
  return atMs === undefined ? `Revision ${revision}` : `Revision ${revision}, ${late ? 'seen at ' : ''}${clock(atMs)}`;
}

function sentenceOf({ kind, key, holding }: Change): string {
  if (kind === 'removed')
    return `${printKey(key)} is free again: it was given back, removed, or it expired${holding === undefined ? '' : ` (${printHolder(holding)} had it)`}.`;
  return holding === undefined
    ? `${printKey(key)} is leased.`
    : `${capital(printHolder(holding))} leases ${printKey(key)}; its lease key is ${holding.createRevision >>> 0}.`;
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

function SubnetMap({
  network,
  holdings,
  change,
}: {
  network: string | undefined;
  holdings: readonly Holding[];
  change: Change | undefined;
}): JSX.Element | undefined {
  const whole = network === undefined ? undefined : parseCidr4(network);
  const length = parseCidr4(holdings[0]?.subnet ?? '')?.prefixLength;
  if (whole === undefined || length === undefined || length <= whole.prefixLength) return undefined;
  const cells = 2 ** (length - whole.prefixLength);
  if (cells > MOST_CELLS) return undefined;
  const held = new Map(
    holdings.map((holding, i) => [
      subnetIndex(addressOf(holding), whole, length),
      { holding, colour: colourOf(holding, holdings, i) },
    ]),
  );
  const touched =
    change === undefined
      ? -1
      : subnetIndex(parseCidr4(printKey(change.key).split(' ')[0])?.address ?? 0, whole, length);
  return (
    <section class="card map-card" aria-label="Map of the pod network">
      <h2>
        {network} <span class="soft">{plural(cells, 'subnet')}, one square each</span>
      </h2>
      <div class="map" role="img" aria-label={`${held.size} of ${cells} subnets are leased`}>
        {Array.from({ length: cells }, (_, i) => {
          const found = held.get(i);
          const title =
            found === undefined ? `subnet ${i}: free` : `${found.holding.subnet}: ${printHolder(found.holding)}`;
          return (
            <span
              key={i}
              title={title}
              class={`cell${found === undefined ? '' : ` held line-${found.colour}`}${i === touched ? ' touched' : ''}`}
            />
          );
        })}
      </div>
    </section>
  );
}
