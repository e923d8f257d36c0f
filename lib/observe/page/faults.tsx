/** Faults on demand: a form for each kind, and the ones that are on, each with its end. */
import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { act } from './live.ts';
import type { State } from './store.ts';

export function Faults({ state }: { state: State }): JSX.Element | undefined {
  const { hello, network } = state;
  const nodes = network?.nodes ?? [];
  const [kindName, setKind] = useState(hello.faults[0]?.kind ?? '');
  const [place, setPlace] = useState('');
  const [amounts, setAmounts] = useState<Record<string, number>>({});
  const kind = hello.faults.find(each => each.kind === kindName) ?? hello.faults[0];
  if (kind === undefined) return undefined;
  const pairs = nodes.flatMap((a, i) => nodes.slice(i + 1).map(b => `${a.name}-${b.name}`));
  const places = [...(kind.between ? pairs : []), ...nodes.map(({ name }) => name)].slice(0, 60);
  const where = places.includes(place) ? place : places[0];
  const amount = amounts[kind.kind] ?? kind.amount?.usual;
  return (
    <section class="card faults" aria-label="Faults">
      <h2>Break something</h2>
      {hello.mayAct ? (
        <form
          onSubmit={event => {
            event.preventDefault();
            void act('fault', { kind: kind.kind, where, ...(amount !== undefined && { amount }) });
          }}
        >
          <fieldset class="kinds">
            <legend class="hidden">What</legend>
            {hello.faults.map(each => (
              <button
                type="button"
                key={each.kind}
                aria-pressed={each.kind === kind.kind}
                title={each.about}
                onClick={() => setKind(each.kind)}
              >
                {each.title}
              </button>
            ))}
          </fieldset>
          <p class="soft about">{kind.about}</p>
          <div class="pair">
            <label>
              where
              <select value={where} onChange={event => setPlace(event.currentTarget.value)}>
                {places.map(each => (
                  <option key={each} value={each}>
                    {each.includes('-') ? each.replace('-', ' ↔ ') : `all of ${each}`}
                  </option>
                ))}
              </select>
            </label>
            {kind.amount !== undefined && (
              <label>
                {kind.amount.label} ({kind.amount.unit})
                <input
                  type="number"
                  min={kind.amount.least}
                  max={kind.amount.most}
                  value={amount}
                  onInput={event => setAmounts({ ...amounts, [kind.kind]: Number(event.currentTarget.value) })}
                />
              </label>
            )}
            <button type="submit" class="primary">
              Break
            </button>
          </div>
        </form>
      ) : (
        <p class="soft">Open the address that the lab printed: it carries the token that the buttons need.</p>
      )}
      {(network?.faults.length ?? 0) > 0 && (
        <ul class="active-faults">
          {network?.faults.map(fault => (
            <li key={fault.id}>
              <span>{fault.text}</span>
              {hello.mayAct && (
                <button
                  type="button"
                  onClick={() => void act('mend', { id: fault.id })}
                  aria-label={`Mend: ${fault.text}`}
                >
                  Mend
                </button>
              )}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
