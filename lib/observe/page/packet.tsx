/** One packet's journey: the list of packets, the path, the step with its words, its bytes and its fields. */
import type { JSX } from 'preact';
import { useLayoutEffect, useMemo, useState } from 'preact/hooks';
import type { Journey } from '../microscope/journey.ts';
import { type Step, stepsOf } from '../microscope/steps.ts';
import { BytesAndFields } from './bytes.tsx';
import { act } from './live.ts';
import { PathStrip } from './path-strip.tsx';
import { SendForm } from './send.tsx';
import { change, type State } from './store.ts';

const MOST_LISTED = 200;

export function PacketView({ state }: { state: State }): JSX.Element {
  const { journeys, chosen } = state;
  const journey = journeys.find(({ id }) => id === chosen) ?? journeys[0];
  return (
    <div class="packet-view">
      <aside aria-label="Packets">
        {state.hello.mayAct && state.hello.actions.includes('send') && <SendForm state={state} />}
        <PacketList
          journeys={journeys}
          chosen={journey?.id}
          live={state.hello.kind === 'lab' || state.hello.kind === 'node'}
          recorder={
            state.hello.mayAct && state.hello.actions.includes('capture') ? (
              <Recorder on={state.capturing} />
            ) : undefined
          }
        />
      </aside>
      {journey === undefined ? (
        <NoPacket state={state} />
      ) : (
        <JourneyView journey={journey} state={state} key={journey.id} />
      )}
    </div>
  );
}

/** Everything that passes, for a minute at most. */
function Recorder({ on }: { on: boolean }): JSX.Element {
  return (
    <button
      type="button"
      class={on ? 'recorder on' : 'recorder'}
      aria-pressed={on}
      title={on ? 'Stop recording' : 'Record what passes, for a minute at most'}
      onClick={() => void act('capture', { on: !on })}
    >
      <span class="dot" aria-hidden="true" />
      {on ? 'Stop' : 'Record'}
    </button>
  );
}

function NoPacket({ state }: { state: State }): JSX.Element {
  const can = state.hello.mayAct && state.hello.actions.includes('send');
  return (
    <section class="empty">
      <h2>No packet yet</h2>
      <p>
        {can
          ? 'Choose two pods on the left and send a packet: every place that it passes is shown here, byte by byte.'
          : state.hello.mayAct && state.hello.actions.includes('capture')
            ? 'Press Record: what passes through this node is shown here, byte by byte. Or drop a pcapng file on this page.'
            : 'As soon as a packet is captured, it is shown here. Or drop a pcapng file on this page.'}
      </p>
    </section>
  );
}

interface ListProps {
  journeys: readonly Journey[];
  chosen: string | undefined;
  live: boolean;
  recorder: JSX.Element | undefined;
}

function PacketList({ journeys, chosen, live, recorder }: ListProps): JSX.Element {
  const listed = live ? [...journeys].slice(-MOST_LISTED).reverse() : journeys.slice(0, MOST_LISTED);
  return (
    <div class="packet-list">
      <h2>
        Packets <span class="soft">{journeys.length}</span>
        {recorder}
      </h2>
      <ul>
        {listed.map(journey => (
          <li key={journey.id}>
            <button
              type="button"
              aria-pressed={journey.id === chosen}
              class={journey.drop === undefined ? '' : 'dropped'}
              onClick={() => change({ chosen: journey.id })}
            >
              <PacketName journey={journey} />
            </button>
          </li>
        ))}
      </ul>
      {journeys.length > listed.length && <p class="soft">and {journeys.length - listed.length} more</p>}
    </div>
  );
}

function PacketName({ journey }: { journey: Journey }): JSX.Element {
  const what = journey.title.replace(/^\S+ > \S+: /, '');
  const verdict = journey.drop !== undefined ? 'dropped' : journey.written.length > 0 ? 'delivered' : 'on its way';
  return (
    <>
      <span class="who">
        {journey.source} → {journey.destination}
      </span>
      <span class="what">{what}</span>
      <span class={`verdict ${verdict.replaceAll(' ', '-')}`}>
        {verdict}
        {journey.sent.length > 1 && ` · ${journey.sent.length} datagrams`}
      </span>
    </>
  );
}

function JourneyView({ journey, state }: { journey: Journey; state: State }): JSX.Element {
  const [index, setIndex] = useState(0);
  const [which, setWhich] = useState(0);
  const who = state.network;
  // Who is who changes each second only in numbers that the steps do not show.
  const whoKey =
    who === undefined
      ? ''
      : JSON.stringify([who.network, who.nodes.map(({ name, subnet, leaseKey }) => [name, subnet, leaseKey])]);
  const steps = useMemo(() => stepsOf(journey, who, which), [journey, whoKey, which]);
  const last = steps.length - 1;
  const at = Math.min(index, last);
  const step = steps[at];

  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (
        event.target instanceof HTMLElement &&
        event.target.closest('input, select, textarea, [role=grid], [role=tablist], [role=dialog]') !== null
      )
        return;
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -last, End: last }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      setIndex(before => Math.max(0, Math.min(last, before + step)));
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, [last]);

  return (
    <section class="journey" aria-label="The packet’s journey">
      <PathStrip steps={steps} at={at} go={setIndex} names={namesOf(journey, state)} />
      <div class="step-bar">
        <button
          type="button"
          class="step-button"
          disabled={at === 0}
          onClick={() => setIndex(at - 1)}
          aria-label="One step back"
        >
          ←
        </button>
        <button
          type="button"
          class="step-button primary"
          disabled={at === last}
          onClick={() => setIndex(at + 1)}
          aria-label="One step on"
        >
          →
        </button>
        <div class="step-title" aria-live="polite">
          <h2>
            <span class="count">
              {at + 1}/{steps.length}
            </span>
            {step.title}
          </h2>
          <p class="where">
            {step.node === '' ? 'between the nodes' : step.node} · <Evidence step={step} />
          </p>
        </div>
        {journey.sent.length > 1 && (
          <label class="which">
            datagram
            <select value={which} onChange={event => setWhich(Number(event.currentTarget.value))}>
              {journey.sent.map((_, i) => (
                <option value={i} key={i}>
                  {i + 1} of {journey.sent.length}
                </option>
              ))}
            </select>
          </label>
        )}
      </div>
      <Story step={step} />
      <BytesAndFields step={step} key={`${step.id} ${which}`} />
    </section>
  );
}

/** What the two ends are called where that is known. */
function namesOf(journey: Journey, state: State): { near: string; far: string } {
  const podOf = (address: string): string => state.network?.pods.find(pod => pod.address === address)?.name ?? address;
  return { near: podOf(journey.source), far: podOf(journey.destination) };
}

function Evidence({ step }: { step: Step }): JSX.Element {
  return step.captured ? (
    <span class="evidence" title="These bytes were captured here">
      captured here
    </span>
  ) : (
    <span class="evidence derived" title="Nobody captured it here: worked out from where it was captured">
      worked out
    </span>
  );
}

function Story({ step }: { step: Step }): JSX.Element {
  const { added, removed, changed } = step.difference;
  return (
    <div class={step.drop === undefined ? 'story' : 'story with-drop'}>
      <div class="words">
        {step.drop !== undefined && (
          <p class="drop-reason" role="alert">
            <strong>Dropped: {step.drop.reason}</strong>
            <span>{step.drop.sentence}.</span>
          </p>
        )}
        <p>{step.text}</p>
        <p class="chips">
          {removed.map(({ title, kind, bytes }) => (
            <span class={`chip removed ${kind}`} key={`-${title}`}>
              − {bytes} {title}
            </span>
          ))}
          {added.map(({ title, kind, bytes }) => (
            <span class={`chip added ${kind}`} key={`+${title}`}>
              + {bytes} {title}
            </span>
          ))}
          {changed.length > 0 && <span class="chip changed">{changedNames(step).join(', ')} changed</span>}
          {added.length + removed.length + changed.length === 0 && step.id !== 'pod' && (
            <span class="chip none">nothing changed</span>
          )}
          {step.code.map(([file, what]) => (
            <span class="code" key={file}>
              <code>{file}</code> {what}
            </span>
          ))}
        </p>
      </div>
      {(step.facts.length > 0 || step.checks !== undefined) && (
        <div class="facts">
          {step.facts.length > 0 && (
            <dl>
              {step.facts.map(([label, value]) => (
                <div key={label}>
                  <dt>{label}</dt>
                  <dd>{value}</dd>
                </div>
              ))}
            </dl>
          )}
          {step.checks !== undefined && (
            <ol class="checks" aria-label="The receiver’s checks">
              {step.checks.map(check => (
                <li key={check.name} class={check.verdict.replaceAll(' ', '-')} title={check.text}>
                  <span class="sign" aria-hidden="true" />
                  <span class="name">{check.name}</span>
                  <span class="hidden">{check.verdict}: </span>
                  <span class="text">{check.text}</span>
                </li>
              ))}
            </ol>
          )}
        </div>
      )}
    </div>
  );
}

/** The fields in which bytes changed: "TTL, header checksum". */
function changedNames(step: Step): string[] {
  const names = step.layers
    .flatMap(layer => layer.fields)
    .filter(field => step.difference.changed.some(at => at >= field.offset && at < field.offset + field.length))
    .map(field => field.name);
  return [...new Set(names)].slice(0, 5);
}
